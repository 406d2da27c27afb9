"""Have canonical weights exported to ONNX by a child process, which has no secrets of this one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from guard.core.errors import IntegrityMismatch, NotServable, Unavailable

MODULE = "guard.serving.onnx_export"
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "2",
    "ORT_DISABLE_TELEMETRY": "1",  # `guard.inference.runtime` says what for
}
_TAIL = 500


class Exporter(Protocol):
    """What makes an ONNX file of canonical weights, as `export` does."""

    def __call__(self, weights: Path, digest: str, out: Path, *, seconds: float) -> str:
        """Write the file, and return its SHA-256."""
        ...


def export(weights: Path, digest: str, out: Path, *, seconds: float) -> str:
    """Write the ONNX file of canonical weights, and return its SHA-256.

    Torch is loaded, and the network is run, in the child: this process may hold the signing key.

    Raises:
        NotServable: the network cannot be exported, or not in time.
        IntegrityMismatch: the weights are not those of `digest`.
        Unavailable: the child ended without an answer.
    """
    # Nothing of this process's environment; the libraries' temporary files go with the draft.
    environment = {**_ENVIRONMENT, "TMPDIR": str(out.parent)}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-I", "-B", "-m", MODULE, str(weights), digest, str(out)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotServable(
            f"The export to ONNX took longer than {seconds:g} s; raise GUARD_EXPORT_SECONDS, or "
            "serve the model with GUARD_PUBLISHER=torchserve.",
            code="export_timeout",
        ) from error
    answer = _answer(done.stdout)
    if "digest" in answer:
        return str(answer["digest"])
    if "sentence" in answer:
        if answer.get("changed"):
            raise IntegrityMismatch(str(answer["sentence"]), code="weights_digest")
        raise NotServable(str(answer["sentence"]), code="not_exportable")
    raise Unavailable(
        f"The export to ONNX ended with {done.returncode}: "
        f"{done.stderr.decode(errors='replace')[-_TAIL:].strip()}",
        code="export_failed",
    )


def _answer(output: bytes) -> dict[str, Any]:
    lines = output.decode(errors="replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
