"""The checks before a weight is read on the serving host; each failure has its own message.

In order: 1 Python runs isolated, so nothing in the archive's folder was imported, 2 this code is
the installed one, 3 the folder holds the published files and nothing else, 4 the statement is
signed by a trusted key and is about these bytes under this name and version, at this time. Only
then are the bytes that were hashed read as weights.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from guard.attest.gate import check_release
from guard.attest.keys import TrustedKeys
from guard.core.contracts import Budget
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.manifest import Manifest
from guard.core.manifests import AnyManifest
from guard.core.molecules import require_rdkit
from guard.core.verdict import Gated
from guard.formats._canonical import read_canonical
from guard.ml.networks.architectures import load

WEIGHTS = "weights.safetensors"
RELEASE = "release.dsse.json"
#: The file with the reason of a refusal for the publisher, since TorchServe passes none on.
REFUSAL = "refused.txt"
FILES = frozenset({WEIGHTS, RELEASE, "MAR-INF/MANIFEST.json"})
#: `python -X guard_trust=/path/of/trusted.json`: on the command line of the worker, where neither
#: an archive nor a management call can reach.
TRUST_OPTION = "guard_trust"
_CHUNK = 1 << 20
_MAX_RELEASE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Released:
    """One model that may be served until `expires_at`."""

    model: Any
    manifest: AnyManifest
    digest: str
    name: str
    version: str
    verdict_id: str
    expires_at: datetime
    gate: Gated | None = None


def load_released(folder: Path, *, name: str, version: str, now: datetime) -> Released:
    """Verify the release in an unpacked archive, then load its weights.

    Raises:
        GuardError: a check failed; nothing was loaded.
        OSError: a file cannot be read.
    """
    _check_isolated()
    _check_installed(folder)
    _check_files(folder)
    envelope = json.loads(_head(folder / RELEASE))
    if not isinstance(envelope, dict):
        raise IntegrityMismatch("The release statement is not an envelope.", code="bad_signature")
    with os.fdopen(os.memfd_create("weights", os.MFD_CLOEXEC), "r+b") as private:
        # A private copy in memory: the bytes that are hashed are the ones that are read, even if
        # somebody writes to the folder in the meantime.
        digest = copy_weights(folder / WEIGHTS, private)
        view = check_release(
            envelope, TrustedKeys.load(_trust()), digest=digest, name=name, version=version, now=now
        )
        manifest, tensors = read_canonical(private)
        model = _opened(manifest, tensors).eval().requires_grad_(requires_grad=False)
    return Released(
        model=model,
        manifest=manifest,
        digest=digest,
        name=name,
        version=version,
        verdict_id=view.verdict_id,
        expires_at=view.expires_at,
        gate=view.gate,
    )


def _opened(manifest: AnyManifest, tensors: Any) -> Any:
    if isinstance(manifest, Manifest):
        return load(manifest, tensors)
    require_rdkit()
    from guard.graphs.model import build

    return build(manifest, tensors)


def check_current(released: Released, now: datetime) -> None:
    """Refuse a release that has expired; called for every request.

    Raises:
        NotServable: it has expired.
    """
    if not now < released.expires_at:
        raise NotServable(
            f"The release of {released.name} {released.version} expired on "
            f"{released.expires_at.isoformat()}; ask for a new scan.",
            code="release_expired",
        )


def _check_isolated() -> None:
    if not sys.flags.isolated:
        raise IntegrityMismatch(
            "This worker's Python is not isolated, so an archive could bring code; start "
            "TorchServe with the guard's --python wrapper.",
            code="not_isolated",
        )


def _check_installed(folder: Path) -> None:
    if Path(__file__).resolve().is_relative_to(folder.resolve()):
        raise IntegrityMismatch(
            "The handler was imported from the archive, not from the installation.",
            code="handler_origin",
        )


def _check_files(folder: Path) -> None:
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    if found - {REFUSAL} != FILES or any((folder / name).is_symlink() for name in FILES):
        raise IntegrityMismatch(
            f"The archive must hold {len(FILES)} published files and nothing else.",
            code="archive_members",
        )


def _trust() -> Path:
    path = sys._xoptions.get(TRUST_OPTION)
    if not isinstance(path, str):
        raise IntegrityMismatch(
            f"This worker has no trusted keys; start TorchServe with the guard's --python wrapper, "
            f"which passes -X {TRUST_OPTION}=FILE.",
            code="no_trust",
        )
    return Path(path)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_RELEASE_BYTES)


def copy_weights(source: Path, target: BinaryIO) -> str:
    """Copy a file of weights, and return the SHA-256 of what was copied.

    Raises:
        IntegrityMismatch: it is larger than the guard publishes.
    """
    hasher = hashlib.sha256()
    left = Budget().file_bytes
    with source.open("rb") as file:
        while block := file.read(_CHUNK):
            left -= len(block)
            if left < 0:
                raise IntegrityMismatch(
                    "The weights are larger than the guard publishes.", code="weights_size"
                )
            hasher.update(block)
            target.write(block)
    target.flush()
    return hasher.hexdigest()
