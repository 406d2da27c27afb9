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
    """Immutable bytes known by their SHA-256.

    What was read from here has been checked against its name.
    """

    @abstractmethod
    def put(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a stream; after this returns, `has(digest)` is true, also after a power cut.

        Memory stays bounded by one chunk (S3: by a few parts of 8 MiB). The same bytes twice are
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
        """A seekable handle; every byte was verified before it is handed out. Raises as `path`."""

    @abstractmethod
    def has(self, digest: str) -> bool:
        """Whether there is such a blob; its bytes are not looked at."""

    @abstractmethod
    def delete(self, digest: str) -> None:
        """Remove it; removing what is not there is harmless."""

    def put_bytes(self, data: bytes) -> str:
        """`put` for bytes at hand."""
        return self.put([data])[0]


def checked(digest: str) -> str:
    """Refuse a name that is no digest before it becomes part of a path."""
    if not is_digest(digest):
        raise InputError(
            f"{digest[:80]!r} is not a SHA-256 in lower-case hexadecimal.", code="not_a_digest"
        )
    return digest
