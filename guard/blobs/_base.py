"""What a blob store promises."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from guard.core.digests import is_digest
from guard.core.errors import InputError, IntegrityMismatch


class BlobMissing(IntegrityMismatch):
    """Bytes that the guard knows of are gone from its own store."""

    code = "blob_missing"


class Blobs(ABC):
    """A store of immutable bytes under their SHA-256, checked against it whenever they are read."""

    @abstractmethod
    def put(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a stream; after this returns, `has(digest)` is true even after a power failure.

        Memory stays bounded by one chunk (S3: by a few parts of 8 MiB). Equal bytes are stored as
        one blob. If `chunks` raises, or the disk is full, nothing stays behind.

        Returns:
            Digest and size in bytes.

        Raises:
            Unavailable: the disk is full or the store does not answer.
        """

    @abstractmethod
    def path(self, digest: str) -> Path:
        """A local, read-only file whose bytes have just been verified.

        Raises:
            BlobMissing: there is no such blob.
            IntegrityMismatch: its bytes have another digest.
            Unavailable: the store does not answer.
        """

    @abstractmethod
    def open(self, digest: str) -> BinaryIO:
        """A seekable handle on bytes that have all been verified; raises the errors of `path`."""

    @abstractmethod
    def has(self, digest: str) -> bool:
        """Whether there is such a blob; its bytes are not read."""

    @abstractmethod
    def delete(self, digest: str) -> None:
        """Remove the blob; removing one that does not exist is harmless."""

    def put_bytes(self, data: bytes) -> str:
        """Store bytes that are already in memory, and return their digest."""
        return self.put([data])[0]


def checked(digest: str) -> str:
    """Return `digest`, or refuse a name that is not a digest before it becomes part of a path."""
    if not is_digest(digest):
        raise InputError(
            f"{digest[:80]!r} is not a SHA-256 in lower-case hexadecimal.", code="not_a_digest"
        )
    return digest
