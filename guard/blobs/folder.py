"""Blobs in a folder.

A blob is the file `ab/abcd...` with mode 0444, written through a temporary file in the same file
system.
"""

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from guard.blobs._base import BlobMissing, Blobs, checked
from guard.core.errors import IntegrityMismatch, Unavailable

CHUNK = 1 << 20
TEMPORARY = ".incoming-"
#: A temporary file this old that nobody holds belongs to a process that was killed. A lock of
#: another host may not show here, but whoever writes changes the file's time.
ABANDONED_SECONDS = 15 * 60
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FolderBlobs(Blobs):
    """A folder of blobs.

    Args:
        root: created if it does not exist, readable by its owner only.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with _translated("The blob folder"):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._forget_abandoned()

    def put(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        sha, size = hashlib.sha256(), 0
        with _translated("The blob folder"):
            self._forget_abandoned()
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=self.root)
            with suppress(OSError):  # a file system without locks; there nobody gets one
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                for chunk in chunks:
                    sha.update(chunk)
                    size += len(chunk)
                    with _translated("The blob folder"):
                        _write(file.fileno(), chunk)
                with _translated("The blob folder"):
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
            digest = sha.hexdigest()
            with _translated("The blob folder"):
                self._keep(temporary, digest)
        finally:
            temporary.unlink(missing_ok=True)
        return digest, size

    def path(self, digest: str) -> Path:
        self.open(digest).close()
        return self.place(digest)

    def open(self, digest: str) -> BinaryIO:
        file = self._open_plain(digest)
        try:
            # The handle that was hashed is the handle that is read, so replacing the file later
            # changes nothing.
            with _translated("The blob folder"):
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise IntegrityMismatch(
                    f"The stored bytes of {digest[:16]}... have the SHA-256 {found[:16]}...; "
                    "delete the blob and submit the upload again.",
                    code="blob_corrupt",
                )
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def has(self, digest: str) -> bool:
        return self.place(digest).is_file()

    def delete(self, digest: str) -> None:
        with _translated("The blob folder"):
            self.place(digest).unlink(missing_ok=True)

    def place(self, digest: str) -> Path:
        """Where the blob is or would be; nothing is verified."""
        return self.root / checked(digest)[:2] / digest

    def _keep(self, temporary: Path, digest: str) -> None:
        place = self.place(digest)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        # Replaces an existing file too: if that one is damaged, the bytes just hashed repair it.
        temporary.replace(place)
        for folder in (place.parent, self.root):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _open_plain(self, digest: str) -> BufferedReader:
        place = self.place(digest)
        try:
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(
                f"The blob {digest[:16]}... is not in the store; submit the upload again."
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise IntegrityMismatch(
                    f"The blob {digest[:16]}... is a link, which the guard never makes."
                ) from error
            raise Unavailable(
                f"The blob {digest[:16]}... cannot be opened: {error.strerror}."
            ) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise IntegrityMismatch(
                f"The blob {digest[:16]}... is not a plain file, which the guard never makes."
            )
        return os.fdopen(handle, "rb")

    def _forget_abandoned(self) -> None:
        limit = time.time() - ABANDONED_SECONDS
        for file in self.root.glob(f"{TEMPORARY}*"):
            with suppress(OSError), file.open("rb") as there:  # it is held, or another was faster
                if os.fstat(there.fileno()).st_mtime < limit:
                    fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()


def _write(handle: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(handle, view) :]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                f"{what} is full ({error.strerror}); free some space.", code="disk_full"
            ) from error
        raise Unavailable(f"{what} cannot be used: {error.strerror}.") from error
