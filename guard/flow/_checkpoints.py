"""Where checkpoints are kept: a file outside the database and, where one is set, a bucket.

The file is append-only: whole lines, each on disk before the next, written under a lock.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.errors import Unavailable

if TYPE_CHECKING:
    from guard.events.bucket import Bucket
    from guard.flow.context import Guard

FILE = "checkpoints.jsonl"
PREFIX = "guard-checkpoints/"
PATIENCE = 30.0  # seconds to wait for another process that is writing a checkpoint
MAX_LINE = 4 << 20  # bytes


@dataclass(frozen=True)
class CheckpointStore:
    """The file in `folder`, and one object for each checkpoint in `bucket`."""

    folder: Path
    bucket: "Bucket | None" = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    def read(self) -> bytes:
        """The whole file; empty where there is none.

        Raises:
            Unavailable: it is there and cannot be read.
        """
        with _usable(self.path):
            return self.path.read_bytes() if self.path.exists() else b""

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every other process from writing checkpoints.

        Raises:
            Unavailable: the folder cannot be written, or another process does not finish.
        """
        with _usable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(handle)
            yield
        finally:
            os.close(handle)

    def append(self, line: bytes, size: int) -> None:
        """Add a line behind the first `size` bytes, inside `writing`.

        What lies behind them is the rest of a line whose writer was killed.

        Raises:
            Unavailable: it could not be written.
        """
        with _usable(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.truncate(size)
                file.seek(size)
                file.write(line + b"\n")
                file.flush()
                os.fsync(handle)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)  # the name too, where the file is new
            finally:
                os.close(folder)

    def newest_object(self, after: int) -> bytes | None:
        """The line with the highest number above `after` in the bucket; None where there is none.

        Raises:
            Unavailable: the bucket does not answer.
        """
        if self.bucket is None:
            return None
        keys = self.bucket.keys_after(PREFIX, _key(after))
        if not keys:
            return None
        found = self.bucket.read_small(max(keys), MAX_LINE)
        return found[0] if found is not None else None

    def put_object(self, number: int, line: bytes) -> None:
        """Store a line as an object of its own, never over another one.

        Raises:
            Unavailable: the bucket does not answer.
        """
        if self.bucket is not None:
            self.bucket.put_new(_key(number), line)


def store_of(guard: "Guard") -> CheckpointStore:
    """Where this guard keeps its checkpoints."""
    settings = guard.settings
    bucket = guard.make_bucket(settings.checkpoint_bucket) if settings.checkpoint_bucket else None
    return CheckpointStore(Path(settings.checkpoint_dir), bucket)


def _key(number: int) -> str:
    return f"{PREFIX}{number:012d}.json"  # names sort as numbers do


def _lock(handle: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Unavailable(
                    "Another process has been writing a checkpoint for too long."
                ) from None
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The ledger's checkpoints at {path} cannot be used: {error.strerror}.",
            code="checkpoint_file",
        ) from error
