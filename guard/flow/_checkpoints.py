"""Where checkpoints are kept: a file outside the database and, where they are set, copies.

The file is append-only: whole lines, each on disk before the next, written under a lock. A copy
lies where whoever rolls back database and file does not reach: in a bucket, or on another volume.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from guard.core.errors import Unavailable

if TYPE_CHECKING:
    from guard.events.bucket import Bucket
    from guard.flow.context import Guard

FILE = "checkpoints.jsonl"
PREFIX = "guard-checkpoints/"
PATIENCE = 30.0  # seconds to wait for another process that is writing a checkpoint
MAX_LINE = 4 << 20  # bytes


class Copy(Protocol):
    """A second place for checkpoints; `called` is its name in sentences."""

    @property
    def called(self) -> str: ...

    def newest(self, after: int) -> bytes | None:
        """The newest line there, if its number is above `after`; None where there is none.

        A place that cannot seek by number may give an older one.

        Raises:
            Unavailable: it cannot be read.
        """

    def put(self, number: int, line: bytes) -> None:
        """Add a line, never in the place of another one.

        Raises:
            Unavailable: it cannot be written.
        """


@dataclass(frozen=True)
class BucketCopy:
    """One object for each checkpoint."""

    bucket: "Bucket"
    called: str = "The bucket"

    def newest(self, after: int) -> bytes | None:
        keys = self.bucket.keys_after(PREFIX, _key(after))
        if not keys:
            return None
        found = self.bucket.read_small(max(keys), MAX_LINE)
        return found[0] if found is not None else None

    def put(self, number: int, line: bytes) -> None:
        self.bucket.put_new(_key(number), line)


@dataclass(frozen=True)
class FolderCopy:
    """The same lines in a file of another folder, which a person made: it may be a mount point."""

    folder: Path
    called: str = "The copy (GUARD_CHECKPOINT_COPY)"

    def newest(self, after: int) -> bytes | None:  # noqa: ARG002 - the last line is the newest
        lines, _ = self._lines()
        return lines[-1] if lines else None

    def put(self, number: int, line: bytes) -> None:  # noqa: ARG002 - numbers only grow
        lines, size = self._lines()
        if line not in lines[-1:]:
            _append(self.folder / FILE, line, size)

    def _lines(self) -> tuple[list[bytes], int]:
        """The last whole line, and where a next one begins; the rest of a killed write is none."""
        path = self.folder / FILE
        with _usable(path):
            if not self.folder.is_dir():
                raise FileNotFoundError(errno.ENOENT, "the folder does not exist; mount or make it")
            data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        return whole.splitlines()[-1:], len(whole)


@dataclass(frozen=True)
class CheckpointStore:
    """The file in `folder`, and its copies."""

    folder: Path
    copies: tuple[Copy, ...] = ()

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
        _append(self.path, line, size)


def store_of(guard: "Guard") -> CheckpointStore:
    """Where this guard keeps its checkpoints."""
    settings = guard.settings
    copies = list[Copy]()
    if settings.checkpoint_bucket:
        copies.append(BucketCopy(guard.make_bucket(settings.checkpoint_bucket)))
    if settings.checkpoint_copy is not None:
        copies.append(FolderCopy(settings.checkpoint_copy))
    return CheckpointStore(Path(settings.checkpoint_dir), tuple(copies))


def _append(path: Path, line: bytes, size: int) -> None:
    with _usable(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.truncate(size)
            file.seek(size)
            file.write(line + b"\n")
            file.flush()
            os.fsync(handle)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the name too, where the file is new
        finally:
            os.close(folder)


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
