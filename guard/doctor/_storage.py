"""Store of objects: buckets, versions, events, the guard's own copies, and who may write where."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from guard.doctor._check import (
    OTHERS_WRITE,
    PROBE,
    Check,
    Finding,
    Ground,
    failed,
    mode_of,
    ok,
    unknown,
    warning,
)

#: Seconds between this clock and the store's: signatures fail from a quarter of an hour on.
DRIFT, MOST_DRIFT = 5.0, 300.0
_S3 = "s3://"
_REACH = "Correct GUARD_S3_ENDPOINT, the credentials, or the rights of the guard's user there."


def buckets(ground: Ground) -> Finding:
    """Whether each intake bucket answers."""
    wanted = [*ground.settings.intake_buckets, *ground.settings.trainset_buckets]
    for name in wanted:
        try:
            ground.s3.head_bucket(Bucket=name)
        except (ClientError, BotoCoreError) as error:
            return failed(f"Bucket {name} does not answer: {_why(error)}.", _REACH)
    return ok(f"{len(wanted)} buckets answer.")


def versions(ground: Ground) -> Finding:
    """Whether intake buckets keep versions, so that what was vetted is not exchanged."""
    for name in ground.settings.intake_buckets:
        try:
            found = ground.s3.get_bucket_versioning(Bucket=name).get("Status")
        except (ClientError, BotoCoreError) as error:
            return unknown(f"Bucket {name} does not say: {_why(error)}.", _REACH)
        if found != "Enabled" and not ground.settings.allow_unversioned:
            return failed(
                f"Bucket {name} keeps no versions, and its uploads are refused.",
                "Turn versioning on, or set GUARD_ALLOW_UNVERSIONED.",
            )
        if found != "Enabled":
            return warning(
                f"Bucket {name} keeps no versions; uploads are known by ETag only.",
                "Turn versioning on.",
            )
    return ok("The intake buckets keep versions.")


def events(ground: Ground) -> Finding:
    """Whether uploads are reported."""
    seconds = f"{ground.settings.sweep_seconds:g}"
    for name in ground.settings.intake_buckets:
        try:
            found = ground.s3.get_bucket_notification_configuration(Bucket=name)
        except (ClientError, BotoCoreError) as error:
            if not _unsupported(error):
                return unknown(f"Bucket {name} does not say: {_why(error)}.", _REACH)
            return warning(
                f"The store does not say which events it sends; the sweep looks every {seconds} s.",
                "Upload a file and look for its nomination at once (`guard status`).",
            )
        if not any(key.endswith(("Configurations", "Configuration")) for key in found):
            return warning(
                f"Bucket {name} sends no events; the sweep finds uploads every {seconds} s.",
                "Send ObjectCreated events to POST /events/s3 or to a queue.",
            )
    return ok("The intake buckets send events.")


def clock(ground: Ground) -> Finding:
    """Whether this clock and the store's agree."""
    name = ground.settings.intake_buckets[0]
    try:
        answer = ground.s3.head_bucket(Bucket=name)
    except (ClientError, BotoCoreError) as error:
        answer = getattr(error, "response", {})
    stated = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not stated:
        return unknown("The store gave no Date.", "Mend `buckets` first.")
    away = abs((ground.now() - parsedate_to_datetime(stated).astimezone(UTC)).total_seconds())
    if away < DRIFT:
        return ok("This clock and the store's agree.")
    sentence = f"This clock and the store's differ by {away:.0f} s."
    mend = "Have both follow a time server."
    return failed(sentence, mend) if away > MOST_DRIFT else warning(sentence, mend)


def blobs(ground: Ground) -> Finding:
    """Whether the guard's own copies can be written; the probe is removed."""
    url = ground.settings.blob_url
    if url.startswith(_S3):
        bucket, prefix = _place(url)
        try:
            with _probe(ground.s3, ground.s3, bucket, prefix):
                return ok(f"{url} can be written.")
        except (ClientError, BotoCoreError) as error:
            return failed(f"{url} cannot be written: {_why(error)}.", _REACH)
    folder = Path(url.removeprefix("file://"))
    if not folder.is_dir():
        return failed(f"There is no folder {folder}.", "Mount or make it, or set GUARD_BLOB_URL.")
    try:
        with NamedTemporaryFile(prefix=f".{PROBE}", dir=folder):
            pass
    except OSError as error:
        return failed(
            f"{folder} cannot be written: {error.strerror}.",
            "Give it to the guard's user; on a host that only answers requests: --skip blobs.",
        )
    if mode_of(folder) & OTHERS_WRITE:
        return failed(f"Others than the owner can write to {folder}.", f"chmod go-w {folder}")
    return ok(f"{folder} can be written, by its owner alone.")


def apart(ground: Ground) -> Finding:
    """Whether others are kept from the guard's own copies (threat A18).

    Tried are a caller without credentials and, where a profile is given, an uploader. What another
    process of the guard may do cannot be tried from this one.
    """
    own = [ground.settings.blob_url]
    if ground.settings.checkpoint_bucket:
        own.append(_S3 + ground.settings.checkpoint_bucket)
    places = [_place(url) for url in own if url.startswith(_S3)]
    if not places:
        return ok("The guard's own copies lie in folders, where uploaders have no credentials.")
    tried = [("Anybody without credentials", lambda: _unsigned(ground))]
    profile = ground.options.uploader_profile
    if profile:
        tried.append((f"The uploader of profile {profile}", lambda: _as_profile(ground, profile)))
    for who, client in tried:
        for bucket, prefix in places:
            found = _refused(ground, client, bucket, prefix)
            if found is True:
                continue
            if found is False:
                return failed(
                    f"{who} can write to {bucket}, where the guard keeps what it vetted.",
                    "Let the guard's user alone write there.",
                )
            return unknown(f"{bucket} does not say who may write: {found}.", _REACH)
    if not profile:
        return warning(
            "Without credentials nobody can write to the guard's copies; no uploader was tried.",
            "Give the credentials of one: --uploader-profile NAME.",
        )
    return ok(
        "Neither an uploader nor anybody without credentials can write to the guard's copies."
    )


def _refused(ground: Ground, client: Callable[[], Any], bucket: str, prefix: str) -> bool | str:
    """Whether a probe is refused; a sentence's part where the store did not say."""
    try:
        with _probe(client(), ground.s3, bucket, prefix):
            return False
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return True if status in {401, 403} else _why(error)
    except BotoCoreError as error:
        return _why(error)


def _unsigned(ground: Ground) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=ground.settings.s3_endpoint or None,
        region_name=ground.settings.s3_region,
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}, **_PATIENCE),
    )


def _as_profile(ground: Ground, profile: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.Session(profile_name=profile).client(
        "s3",
        endpoint_url=ground.settings.s3_endpoint or None,
        region_name=ground.settings.s3_region,
        config=Config(s3={"addressing_style": "path"}, **_PATIENCE),
    )


_PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 1},
}


@contextmanager
def _probe(writer: Any, owner: Any, bucket: str, prefix: str) -> Iterator[None]:
    """An object that `writer` made, removed by `owner`, also where it keeps versions."""
    owner.head_bucket(Bucket=bucket)  # some stores make a bucket of whatever is written to
    key = f"{prefix}{PROBE}{secrets.token_hex(8)}"
    answer = writer.put_object(Bucket=bucket, Key=key, Body=b"")
    try:
        yield
    finally:
        version = answer.get("VersionId")
        owner.delete_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))


def _place(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix(_S3).partition("/")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _why(error: ClientError | BotoCoreError) -> str:
    """A store's error without its address, request or credentials."""
    if isinstance(error, ClientError):
        found = error.response.get("Error", {})
        return str(found.get("Code") or "an error without a code")
    return type(error).__name__


def _unsupported(error: ClientError | BotoCoreError) -> bool:
    status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status in {404, 405, 501}


CHECKS = (
    Check("buckets", buckets),
    Check("bucket_versions", versions),
    Check("bucket_events", events),
    Check("clock", clock),
    Check("blobs", blobs),
    Check("blobs_apart", apart),
)
