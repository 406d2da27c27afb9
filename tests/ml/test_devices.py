"""What a process may allocate on a GPU; no machine of ours has one, so torch is only asked."""

from types import SimpleNamespace

import pytest
import torch

from guard.ml.devices import bound


@pytest.mark.row(56)
@pytest.mark.parametrize(
    ("device", "most", "asked"),
    [
        ("cuda:1", 10 << 30, [(0.25, "cuda:1")]),
        ("cuda", 80 << 30, [(1.0, "cuda")]),
        ("cuda", 0, []),
        ("cpu", 10 << 30, []),
        ("", 10 << 30, [(0.25, "cuda")]),
        (None, 10 << 30, [(0.25, "cuda")]),
    ],
)
def test_a_process_may_allocate_its_share_of_a_gpu_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    most: int,
    asked: list[tuple[float, str]],
) -> None:
    found: list[tuple[float, str]] = []

    def share(fraction: float, where: torch.device) -> None:
        found.append((fraction, str(where)))

    whole = SimpleNamespace(total_memory=40 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _where: whole)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", share)

    bound(device, most)

    assert found == asked
