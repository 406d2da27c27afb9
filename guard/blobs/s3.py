"""Blobs in an S3 bucket of the guard's own, read through a local folder of verified copies."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from guard.blobs._base import BlobMissing, Blobs, checked
from guard.blobs.folder import CHUNK, FolderBlobs
from guard.core.errors import IntegrityMismatch, Unavailable

PART = 8 << 20  # S3 allows 10,000 parts: enough for 80 GB
_TRANSFER = TransferConfig(
    multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=2, max_io_queue=4
)
_GONE = {"404", "NoSuchKey", "NotFound"}


class S3Blobs(Blobs):
    """Blobs under `s3://bucket/prefix/<digest>`.

    A stream is staged in the cache, since its key is not known before its last byte, and uploaded
    in parts from there. The guard never trims the cache, because its files may be in use; empty the
    folder while no worker runs.

    Args:
        client: a boto3 S3 client.
        bucket: a bucket that no uploader may write to.
        prefix: key prefix without slashes at its ends; may be empty.
        cache: local folder, private to this host.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, cache: Path) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.cache = FolderBlobs(cache)

    def put(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        digest, size = self.cache.put(chunks)
        if self._size(digest) != size:
            with _translated(digest):
                self.client.upload_file(
                    str(self.cache.place(digest)), self.bucket, self._key(digest), Config=_TRANSFER
                )
        return digest, size

    def path(self, digest: str) -> Path:
        self.open(digest).close()
        return self.cache.place(digest)

    def open(self, digest: str) -> BinaryIO:
        try:
            return self.cache.open(digest)
        except BlobMissing:
            pass
        except IntegrityMismatch:
            self.cache.delete(digest)  # the cached copy is damaged; the bucket's may be intact
        self._download(digest)
        return self.cache.open(digest)

    def has(self, digest: str) -> bool:
        return self._size(digest) is not None

    def delete(self, digest: str) -> None:
        self.cache.delete(digest)
        with _translated(digest):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(digest))

    def _key(self, digest: str) -> str:
        return f"{self.prefix}/{checked(digest)}" if self.prefix else checked(digest)

    def _size(self, digest: str) -> int | None:
        try:
            with _translated(digest):
                return int(
                    self.client.head_object(Bucket=self.bucket, Key=self._key(digest))[
                        "ContentLength"
                    ]
                )
        except BlobMissing:
            return None

    def _download(self, digest: str) -> None:
        with _translated(digest):
            body = self.client.get_object(Bucket=self.bucket, Key=self._key(digest))["Body"]
            try:
                found, _size = self.cache.put(body.iter_chunks(CHUNK))
            finally:
                body.close()
        if found != digest:
            self.cache.delete(found)
            raise IntegrityMismatch(
                f"The bucket's bytes of {digest[:16]}... have the SHA-256 {found[:16]}...; "
                "delete the blob and submit the upload again.",
                code="blob_corrupt",
            )


@contextmanager
def _translated(digest: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _GONE:
            raise BlobMissing(
                f"The blob {digest[:16]}... is not in the store; submit the upload again."
            ) from error
        raise Unavailable(
            f"The blob bucket refuses with {code}; check its name and the guard's rights."
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise Unavailable(
            f"The blob bucket does not answer ({type(error).__name__}); try again."
        ) from error
