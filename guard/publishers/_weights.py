"""Bytes on their way to serving, copied once and kept only if their digest is the vetted one."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from guard.core.contracts import Budget
from guard.core.errors import IntegrityMismatch

CHUNK = 1 << 20
#: Where the canonical file keeps its manifest; written by `guard.formats`, which publishers do not
#: import.
MANIFEST_KEY = "guard.manifest"
_LENGTH_BYTES = 8


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


def copy_verified(weights: BinaryIO, sink: _Sink, digest: str) -> None:
    """Stream `weights` from the start into `sink`.

    Raises:
        IntegrityMismatch: their SHA-256 is not `digest`; what was written must be thrown away.
    """
    hasher = hashlib.sha256()
    weights.seek(0)
    while block := weights.read(CHUNK):
        hasher.update(block)
        sink.write(block)
    if hasher.hexdigest() != digest:
        raise IntegrityMismatch(
            f"The weights handed over for {digest[:12]} have another digest, "
            f"{hasher.hexdigest()[:12]}; nothing was published. Check the blob store with "
            "`guard verify`.",
            code="weights_digest",
        )


def manifest_of(weights: BinaryIO) -> dict[str, Any]:
    """The manifest inside a canonical file.

    Raises:
        IntegrityMismatch: it is not a canonical file, so the guard did not write it.
    """
    weights.seek(0)
    size = int.from_bytes(weights.read(_LENGTH_BYTES), "little")
    try:
        if size > Budget().header_bytes:
            raise ValueError("the header is too large")
        value = json.loads(json.loads(weights.read(size))["__metadata__"][MANIFEST_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityMismatch(
            "These weights hold no manifest, so the guard did not write them; nothing was "
            "published.",
            code="not_canonical",
        ) from error
    if not isinstance(value, dict):
        raise IntegrityMismatch(
            "The manifest inside these weights is not a JSON object.", code="not_canonical"
        )
    return value


def replace_durably(draft: Path, target: Path, *, mode: int = 0o444) -> None:
    """Move a finished file to its place in one step.

    After a power failure there is the old file, the new one, or none.
    """
    draft.chmod(mode)
    _flush(draft)
    draft.replace(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Hashes:
    """SHA-256 of files, which are read again only if they changed.

    The cache key holds the inode and its change time, which the file's owner cannot set back. So a
    flipped byte is noticed, and no watcher reads gigabytes every few seconds.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str:
        """SHA-256 of a plain file; a link is not followed.

        Raises:
            OSError: it does not exist, is not readable, or is not a plain file.
        """
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(f"{path.name} is not a plain file")
            identity, change = (
                (facts.st_dev, facts.st_ino),
                (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns),
            )
            known = self._known.get(identity)
            if known is None or known[0] != change:
                known = (change, hashlib.file_digest(file, "sha256").hexdigest())
                self._known[identity] = known
            return known[1]
