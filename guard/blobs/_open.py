"""Open a blob store by its URL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from guard.blobs._base import Blobs
from guard.blobs.folder import FolderBlobs
from guard.core.errors import InputError


def open_blobs(
    url: str, *, client: Callable[[], Any] | None = None, cache: Path | None = None
) -> Blobs:
    """Open the blob store that `url` names.

    Args:
        url: a folder's path, `file:///folder`, or `s3://bucket/prefix`.
        client: makes the boto3 client, for s3 only.
        cache: local folder of verified copies, for s3 only.

    Raises:
        InputError: the URL is of another kind, or an argument that s3 needs is missing.
    """
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket or client is None or cache is None:
            raise InputError(
                "Blobs in S3 need s3://bucket/prefix, the store's credentials and a cache folder."
            )
        # Imported here, because boto3 takes half a second to load.
        from guard.blobs.s3 import S3Blobs

        return S3Blobs(client(), bucket, prefix, cache)
    if "://" in url and not url.startswith("file://"):
        raise InputError(
            f"Blobs are stored in a folder or under s3://, not under {url.split('://', maxsplit=1)[0]}://."
        )
    if not url:
        raise InputError("The blob URL is empty; give a folder or s3://bucket/prefix.")
    return FolderBlobs(Path(url.removeprefix("file://")))
