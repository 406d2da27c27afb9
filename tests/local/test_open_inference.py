"""Which server `guard up` starts, and how it starts the guard's own."""

from pathlib import Path

import pytest

from guard.local._ports import free_ports
from guard.local.component import Place
from guard.local.open_inference import OpenInference
from guard.local.supervisor import Stack


@pytest.mark.parametrize(
    ("publisher", "started"),
    [
        (None, {"torchserve"}),
        ("", {"torchserve"}),
        ("torchserve", {"torchserve"}),
        (" open_inference ", {"open_inference"}),
        ("folder", set()),
    ],
)
def test_the_publisher_decides_which_server_is_started(
    tmp_path: Path, publisher: str | None, started: set[str]
) -> None:
    chosen = {} if publisher is None else {"GUARD_PUBLISHER": publisher}
    with Stack(tmp_path / "data", chosen) as stack:
        assert {"torchserve", "open_inference"} & set(stack._components) == started


def test_a_server_that_runs_elsewhere_is_used_and_not_started(tmp_path: Path) -> None:
    chosen = {
        "GUARD_PUBLISHER": "open_inference",
        "GUARD_OPEN_INFERENCE_MANAGEMENT": "unix:/run/guard-oi/m.sock",
    }
    with Stack(tmp_path / "data", chosen, parts=("open_inference",)) as stack:
        (only,) = stack.status()

    assert (only.component, only.address) == ("open_inference", "unix:/run/guard-oi/m.sock")


@pytest.mark.threat("A10", "C24")
def test_it_starts_empty_and_without_the_environment_of_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        "guard.local.open_inference.Process", lambda command, **more: asked.update(more, c=command)
    )
    place = Place(
        data=tmp_path,
        run=tmp_path,
        secrets={},
        env={"PATH": "/usr/bin", "AWS_SECRET_ACCESS_KEY": "leak-me-not"},
        ports={"open_inference": free_ports(1)[0]},
    )
    (tmp_path / "oi" / "store" / "left").mkdir(parents=True)
    OpenInference(place, trusted=tmp_path / "trusted.json").start()

    assert list((tmp_path / "oi" / "store").iterdir()) == []
    assert (tmp_path / "oi").stat().st_mode & 0o077 == 0
    assert "leak-me-not" not in str(asked)
    assert "'-I', '-B', '-m', 'guard.inference'" in str(asked["c"])
