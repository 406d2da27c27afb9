"""What the server refuses to load: whatever a signed release does not name, byte by byte."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.contracts import ServedForm
from guard.core.errors import GuardError, IntegrityMismatch, NotServable
from guard.inference.runtime import Session
from tests.inference.making import loaded, put
from tests.publishers.making import Authority, Vetted


def test_a_release_is_loaded_with_the_digests_of_the_bytes(
    folder: Path, authority: Authority, model: Vetted
) -> None:
    found = loaded(folder, authority)

    assert found.release.digest == model.digest
    assert found.release.served == ServedForm(format="onnx", digest=found.digest)
    assert found.manifest == model.manifest


def without_release(folder: Path) -> None:
    (folder / "release.dsse.json").unlink()


def release_of_another_kind(folder: Path) -> None:
    (folder / "release.dsse.json").write_text("[]")


def linked_model(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "elsewhere")
    (folder / "model.onnx").symlink_to(folder / "elsewhere")


def no_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


def changed_statement(folder: Path) -> None:
    file = folder / "release.dsse.json"
    envelope = json.loads(file.read_text())
    payload = envelope["payload"]
    envelope["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    file.write_text(json.dumps(envelope))


@pytest.mark.parametrize(
    "change",
    [without_release, release_of_another_kind, linked_model, no_file, changed_statement],
)
def test_a_folder_that_was_changed_is_refused(
    folder: Path, authority: Authority, change: Callable[[Path], None]
) -> None:
    change(folder)

    with pytest.raises((GuardError, OSError)):
        loaded(folder, authority)


def test_a_release_of_another_name_is_refused(folder: Path, authority: Authority) -> None:
    other = folder.parents[1] / "other" / folder.name
    other.parent.mkdir()
    folder.rename(other)

    with pytest.raises(IntegrityMismatch) as caught:
        loaded(other, authority)
    assert caught.value.code == "other_release"


def test_a_release_that_has_expired_is_not_loaded(folder: Path, authority: Authority) -> None:
    with pytest.raises(NotServable):
        loaded(folder, authority, after=7200)


@pytest.mark.parametrize(
    "served", [None, ServedForm(format="pickle", digest="0" * 64)], ids=["none", "another form"]
)
def test_a_release_that_names_no_onnx_file_is_refused(
    tmp_path: Path, authority: Authority, model: Vetted, served: ServedForm | None
) -> None:
    folder = put(tmp_path / "other store", model, authority, served=served)

    with pytest.raises(IntegrityMismatch):
        loaded(folder, authority)


def test_the_telemetry_of_onnx_runtime_is_off(
    tmp_path: Path, folder: Path, authority: Authority
) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from guard.inference.runtime import Session\n"
        "Session(Path(sys.argv[1]).read_bytes())\n"
        "assert 'torch' not in sys.modules\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [sys.executable, "-I", "-B", "-c", script, str(folder / "model.onnx")],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=60,
    )

    assert list(home.rglob("*")) == []


def test_what_is_no_onnx_file_is_refused_whatever_its_release_says() -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf|parse|model"):
        Session(b"not a model")
