"""The folder of a back-up: its files, written and read with their digests."""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guard.core.errors import InputError, IntegrityMismatch, Unavailable

INVENTORY = "backup.json"
DATABASE = "database.jsonl.gz"
CHECKPOINTS = "checkpoints.jsonl"
TRUSTED = "trusted.json"
BLOBS = "blobs.txt"
SIGNING = "signing.pem"
HOOKS = "hooks.key"
BLOB_FOLDER = "blobs"
_NAMES = frozenset({DATABASE, CHECKPOINTS, TRUSTED, BLOBS, SIGNING, HOOKS})
_CHUNK = 1 << 20
MAX_INVENTORY = 8 << 20  # bytes


class BackupFolder:
    """A folder that only its owner can enter; each file is known by its SHA-256.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests: dict[str, str] = {}

    def make(self) -> None:
        """Make the folder.

        Raises:
            InputError: there is something in it already, or it cannot be made.
        """
        with self._usable():
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            if any(self.path.iterdir()):
                raise InputError(f"{self.path} is not empty; name a new folder.", code="backup_dir")

    def write(self, name: str, data: bytes) -> None:
        """Add a small file."""
        self._keep(name, iter([data]))

    def write_lines(self, name: str, lines: Iterable[bytes]) -> None:
        """Add a compressed file of lines."""
        with self._usable():
            handle = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as raw:
                with gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
                    for line in lines:
                        file.write(line)
                raw.flush()
                os.fsync(handle)
            self.digests[name] = self._digest(name)

    def seal(self, envelope: Mapping[str, Any]) -> None:
        """Write the inventory, which makes a back-up of the folder."""
        data = json.dumps(envelope, indent=1).encode() + b"\n"
        self._keep(INVENTORY, iter([data]))

    def envelope(self) -> dict[str, Any]:
        """The signed inventory.

        Raises:
            InputError: the folder is no back-up, or one that was not finished.
        """
        path = self.path / INVENTORY
        if not path.is_file() or path.stat().st_size > MAX_INVENTORY:
            raise InputError(
                f"{self.path} holds no finished back-up: {INVENTORY} is not there.",
                code="backup_dir",
            )
        with self._usable():
            try:
                value = json.loads(path.read_bytes())
            except (ValueError, RecursionError) as error:
                raise IntegrityMismatch(
                    f"{INVENTORY} is not JSON.", code="backup_changed"
                ) from error
        return value if isinstance(value, dict) else {}

    def check(self, files: Mapping[str, str]) -> None:
        """Compare every file with the inventory.

        Raises:
            IntegrityMismatch: one is missing, was changed, or does not belong to a back-up.
        """
        unknown = sorted(set(files) - _NAMES)
        for name, digest in sorted(files.items()):
            path = self.path / name
            with self._usable():
                if unknown or not path.is_file() or self._digest(name) != digest:
                    wrong = (unknown or [name])[0]
                    raise IntegrityMismatch(
                        f"{wrong[:60]!r} of the back-up is missing or was changed; take another "
                        "back-up.",
                        code="backup_changed",
                    )
        self.digests = dict(files)

    def read(self, name: str) -> bytes:
        """A small file that `check` has compared; empty where the back-up has none."""
        if name not in self.digests:
            return b""
        with self._usable():
            data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.digests[name]:
            raise IntegrityMismatch(f"{name} was changed meanwhile.", code="backup_changed")
        return data

    def read_lines(self, name: str) -> Iterator[bytes]:
        """The lines of a compressed file."""
        with self._usable(), gzip.open(self.path / name, "rb") as file:
            yield from file

    def _keep(self, name: str, chunks: Iterator[bytes]) -> None:
        with self._usable():
            handle = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(handle)
            self.digests[name] = self._digest(name)

    def _digest(self, name: str) -> str:
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "it ends too early"
            raise Unavailable(
                f"The back-up at {self.path} cannot be used: {reason}.", code="backup_file"
            ) from error


_HEX = re.compile(rb'"([0-9a-f]{64})"')


def digests_in(line: bytes) -> list[str]:
    """What may be the digest of a blob in a line of the dump."""
    return [found.decode() for found in _HEX.findall(line)]
