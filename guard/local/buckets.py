"""Make the buckets of a store that comes along: uploads with versions, and the guard's own copies.

Run as `python -m guard.local.buckets`; `docker/compose.yaml` does so with the profile `s3`.
"""

import contextlib
from collections.abc import Sequence

from guard.core.errors import Unavailable
from guard.settings import Settings, load_settings


def make(settings: Settings, others: Sequence[str] = ()) -> None:
    """Make the intake bucket and `others`; harmless if they exist.

    The intake bucket keeps versions, so that no upload can be swapped during its scan.

    Raises:
        Unavailable: the store did not answer, or refused.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint or None,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.reveal(),
        config=Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=10,
            retries={"mode": "standard", "max_attempts": 5},
        ),
    )
    try:
        for name in (settings.intake_bucket, *others):
            with contextlib.suppress(
                client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
            ):
                client.create_bucket(Bucket=name)
        client.put_bucket_versioning(
            Bucket=settings.intake_bucket, VersioningConfiguration={"Status": "Enabled"}
        )
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(
            f"The store did not make the bucket {settings.intake_bucket!r}: {error}"
        ) from error


def blob_bucket(settings: Settings) -> list[str]:
    """The bucket of `GUARD_BLOB_URL`, if blobs lie in one."""
    prefix, _, rest = settings.blob_url.partition("s3://")
    return [] if prefix or not rest else [rest.split("/")[0]]


if __name__ == "__main__":
    found = load_settings()
    make(found, blob_bucket(found))
