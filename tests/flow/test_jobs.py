"""The child process of a stage: what it sees, how it ends, what its errors become."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, Cancelled, MethodFailed, OutOfTime
from guard.core.manifest import Manifest
from guard.flow import jobs
from guard.ml import architectures
from guard.settings import child_environment

MANIFEST = Manifest.from_dict({
    "architecture": "cifar_resnet", "num_classes": 5, "model_args": {"depths": [1], "width": 4},
    "pretrained_cfg": {"input_size": [1, 8, 8]},
})


def limits(seconds: float = 60.0, memory: int = 8 << 30) -> jobs.Limits:
    return jobs.Limits(seconds=seconds, memory_bytes=memory, environment=child_environment())


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    safetensors.torch.save_file(architectures.export(architectures.build(MANIFEST)), path)
    return path


def request(path: Path, manifest: str | None = None) -> dict[str, object]:
    text = json.dumps(MANIFEST.to_dict()) if manifest is None else manifest
    return {"path": str(path), "name": "model.safetensors", "manifest": text, "budget": asdict(Budget())}


def test_an_upload_becomes_a_canonical_file(upload: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    answer = jobs.run("inspect", request(upload), out, limits=limits())

    assert answer["format"] == "safetensors"
    assert Manifest.from_dict(answer["manifest"]) == MANIFEST
    assert (out / answer["canonical"]).is_file()


def test_a_rejection_keeps_its_class_code_and_sentence(upload: Path, tmp_path: Path) -> None:
    other = MANIFEST.to_dict() | {"num_classes": 7}

    with pytest.raises(ArtifactRejected, match="linear") as caught:
        jobs.run("inspect", request(upload, json.dumps(other)), tmp_path, limits=limits())

    assert caught.value.code == "architecture_mismatch"


def test_a_job_that_takes_too_long_is_ended(upload: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfTime):
        jobs.run("inspect", request(upload), tmp_path, limits=limits(seconds=0.2))


def test_a_job_that_takes_too_much_memory_is_ended(upload: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodFailed) as caught:
        jobs.run("inspect", request(upload), tmp_path, limits=limits(memory=1 << 20))

    assert caught.value.code == "out_of_memory"


def test_a_job_that_crashes_is_a_failed_method_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(MethodFailed, match="KeyError") as caught:
        jobs.run("inspect", {}, tmp_path, limits=limits())

    assert caught.value.code == "job_crashed"


def test_progress_may_stop_the_job(upload: Path, tmp_path: Path) -> None:
    def stop(_done: float, _note: str) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        jobs.run("inspect", request(upload), tmp_path, limits=limits(), on_progress=stop)

    assert not (tmp_path / jobs.RESULT).exists()


def test_the_child_sees_no_credentials() -> None:
    seen = child_environment({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "GUARD_S3_SECRET_KEY": "y"})

    assert set(seen) == {"PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "OMP_WAIT_POLICY"}
