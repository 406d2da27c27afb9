"""The child process of a stage: what it sees, how it ends, what its errors become."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import safetensors.torch
from torch import OutOfMemoryError

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, Cancelled, MethodFailed, OutOfTime
from guard.core.manifest import Manifest
from guard.jobs import child, client, run
from guard.jobs.server import hazards
from guard.ml.networks import architectures
from guard.settings import child_environment

MANIFEST = Manifest.from_dict(
    {
        "architecture": "cifar_resnet",
        "num_classes": 5,
        "model_args": {"depths": [1], "width": 4},
        "pretrained_cfg": {"input_size": [1, 8, 8]},
    }
)


def limits(seconds: float = 60.0, memory: int = 8 << 30) -> run.Limits:
    return run.Limits(seconds=seconds, memory_bytes=memory, environment=child_environment())


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    safetensors.torch.save_file(architectures.export(architectures.build(MANIFEST)), path)
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """An upload that never comes to its end: whoever opens it waits."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    return path


class Seen:
    """A look at the process of the job in `folder`, once it is at work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: psutil.Process | None = None
        self.environment: dict[str, str] = {}
        self.files: list[str] = []

    def look(self, _done: float, _note: str) -> None:
        server = psutil.Process(client.warm_up(child_environment()))
        for process in server.children():
            with suppress(psutil.Error, FileNotFoundError):  # it is just ending
                if process.cwd() != str(self.folder):
                    continue
                environment = process.environ()
                files = sorted(path.name for path in Path(f"/proc/{process.pid}/fd").iterdir())
                self.child = process
                if environment:  # of one that is just ending the kernel shows none
                    self.environment, self.files = environment, files


def request(path: Path, manifest: str | None = None) -> dict[str, object]:
    text = json.dumps(MANIFEST.to_dict()) if manifest is None else manifest
    return {
        "path": str(path),
        "name": "model.safetensors",
        "manifest": text,
        "budget": asdict(Budget()),
    }


def test_an_upload_becomes_a_canonical_file(upload: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    answer = run.run_job("inspect", request(upload), out, limits=limits())

    assert answer["format"] == "safetensors"
    assert Manifest.from_dict(answer["manifest"]) == MANIFEST
    assert (out / answer["canonical"]).is_file()


def test_a_rejection_keeps_its_class_code_and_sentence(upload: Path, tmp_path: Path) -> None:
    other = MANIFEST.to_dict() | {"num_classes": 7}

    with pytest.raises(ArtifactRejected, match="linear") as caught:
        run.run_job("inspect", request(upload, json.dumps(other)), tmp_path, limits=limits())

    assert caught.value.code == "architecture_mismatch"


@pytest.mark.row(56)
@pytest.mark.threat("C08")
def test_a_job_that_takes_too_long_is_ended(endless: Path, tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    with pytest.raises(OutOfTime):
        run.run_job(
            "inspect", request(endless), tmp_path, limits=limits(seconds=10), on_progress=seen.look
        )

    assert seen.child is not None
    assert not seen.child.is_running()


@pytest.mark.row(56)
@pytest.mark.threat("C09")
def test_a_job_that_takes_too_much_memory_is_ended(upload: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodFailed) as caught:
        run.run_job("inspect", request(upload), tmp_path, limits=limits(memory=1 << 20))

    assert caught.value.code == "out_of_memory"


def test_a_job_that_crashes_is_a_failed_method_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(MethodFailed, match="KeyError") as caught:
        run.run_job("inspect", {}, tmp_path, limits=limits())

    assert caught.value.code == "job_crashed"


def test_progress_may_stop_the_job(upload: Path, tmp_path: Path) -> None:
    def stop(_done: float, _note: str) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run.run_job("inspect", request(upload), tmp_path, limits=limits(), on_progress=stop)

    assert not (tmp_path / run.RESULT).exists()


@pytest.mark.threat("C18")
def test_the_child_sees_no_credentials() -> None:
    seen = child_environment(
        {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "GUARD_S3_SECRET_KEY": "y"}
    )

    assert set(seen) == {
        "PATH",
        "HOME",
        "PYTHONDONTWRITEBYTECODE",
        "OMP_WAIT_POLICY",
        "OPENBLAS_NUM_THREADS",
    }


@pytest.mark.threat("A15")
def test_a_job_at_work_and_its_server_hold_no_secret_and_no_descriptor_of_others(
    endless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_S3_SECRET_KEY", "the-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    seen = Seen(tmp_path)

    with pytest.raises(OutOfTime):
        run.run_job(
            "inspect", request(endless), tmp_path, limits=limits(seconds=15), on_progress=seen.look
        )

    server = psutil.Process(client.warm_up(child_environment()))
    assert seen.environment == child_environment()
    assert server.environ() == child_environment()
    assert seen.files == ["0", "1", "2"]


def test_the_server_is_safe_to_fork_after_its_imports(upload: Path, tmp_path: Path) -> None:
    run.run_job("inspect", request(upload), tmp_path, limits=limits())

    server = Path(f"/proc/{client.warm_up(child_environment())}")
    targets = [str(link.readlink()) for link in (server / "fd").iterdir()]
    assert len(list((server / "task").iterdir())) == 1
    assert not [target for target in targets if target.startswith("/dev/nvidia")]


def test_a_second_thread_is_a_hazard() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()

    found = hazards()

    stop.set()
    thread.join()
    assert any("threads" in hazard for hazard in found)


def test_where_a_fork_is_not_safe_a_job_starts_python_afresh(upload: Path, tmp_path: Path) -> None:
    # NumPy's library starts threads as it is imported, where it is let (and where there are two
    # processors).
    environment = child_environment() | {"OPENBLAS_NUM_THREADS": "4"}

    answer = run.run_job(
        "inspect",
        request(upload),
        tmp_path,
        limits=run.Limits(seconds=120, memory_bytes=8 << 30, environment=environment),
    )

    assert answer["format"] == "safetensors"


@pytest.mark.threat("C09")
def test_a_server_that_was_killed_is_replaced(upload: Path, tmp_path: Path) -> None:
    before = client.warm_up(child_environment())
    os.kill(before, signal.SIGKILL)

    answer = run.run_job("inspect", request(upload), tmp_path, limits=limits())

    assert answer["format"] == "safetensors"
    assert client.warm_up(child_environment()) != before


def test_a_job_whose_server_is_killed_is_a_failed_method(endless: Path, tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    def kill(done: float, note: str) -> None:
        seen.look(done, note)
        if seen.child is not None:
            os.kill(client.warm_up(child_environment()), signal.SIGKILL)

    with pytest.raises(MethodFailed, match="lost with its server") as caught:
        run.run_job("inspect", request(endless), tmp_path, limits=limits(), on_progress=kill)

    assert caught.value.code == "job_crashed"
    assert seen.child is not None
    assert gone(seen.child)


WORKER = """
import sys
from pathlib import Path
from guard.jobs import client, run
from guard.settings import child_environment
limits = run.Limits(seconds=60, memory_bytes=8 << 30, environment=child_environment())
print(client.warm_up(child_environment()), flush=True)
request = {"path": sys.argv[1], "name": "x", "manifest": None, "budget": {}}
run.run_job("inspect", request, Path(sys.argv[2]), limits=limits)
"""


def test_a_job_and_its_server_die_with_the_worker(endless: Path, tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(endless), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    server = psutil.Process(int(worker.stdout.readline()))
    deadline = time.monotonic() + 60
    while not (children := server.children()) and time.monotonic() < deadline:
        time.sleep(0.05)

    worker.kill()
    worker.wait()
    worker.stdout.close()

    assert children
    assert gone(*children, server)


def gone(*processes: psutil.Process) -> bool:
    """Whether all have ended within a few seconds."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_gpu_that_is_full_is_an_error_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
        del request, out
        raise OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(child.KINDS, "inspect", full)
    monkeypatch.chdir(tmp_path)
    request = {"kind": "inspect", "out": str(tmp_path), "gpu_memory_bytes": 0}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))

    child.main()

    error = json.loads((tmp_path / run.RESULT).read_text())["error"]
    assert (error["type"], error["code"]) == ("MethodFailed", "out_of_gpu_memory")
    assert "GUARD_SCAN_GPU_MEMORY_BYTES" in error["sentence"]
