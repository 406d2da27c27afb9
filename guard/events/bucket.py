"""One S3 bucket, read with the guard's own credentials: facts, pinned streams, listings.

It is the only source of facts about uploads.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from guard.core.errors import ArtifactRejected, InputError, Unavailable

CHUNK = 1 << 20
# 405 is the answer for a delete marker.
_GONE = {"404", "NoSuchKey", "NoSuchVersion", "NotFound", "MethodNotAllowed", "405"}
_REPLACED = {"412", "PreconditionFailed"}
_MALFORMED = {"400", "InvalidArgument", "BadRequest", "KeyTooLongError", "InvalidURI"}


class ObjectChanged(ArtifactRejected):
    """The object is gone or was replaced (code `object_gone` or `object_replaced`)."""

    code = "object_gone"


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """What S3 itself reports about one object version.

    `version_id` is None in a bucket without versioning; `etag` is an opaque string, not a hash;
    `size` in bytes. `metadata` holds the uploader's claims, which nothing relies on.
    """

    bucket: str
    key: str
    version_id: str | None
    size: int
    etag: str
    owner: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified: datetime | None = None

    @property
    def pin(self) -> str:
        """What distinguishes this content from every other under the same key."""
        return self.version_id or f"etag:{self.etag}"


def make_client(
    *,
    endpoint: str = "",
    region: str = "us-east-1",
    access_key: str = "",
    secret_key: str = "",
    service: str = "s3",
) -> Any:
    """A boto3 client with time-outs and bounded retries.

    Args:
        endpoint: URL of the store; empty means AWS.
        access_key: empty means the AWS SDK's own chain of credentials.
    """
    config = Config(
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        # Older S3-compatible stores do not know these checksums: send and request them only where
        # S3 requires them.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        service,
        endpoint_url=endpoint or None,
        region_name=region,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        config=config,
    )


class Bucket:
    """One bucket.

    Every method raises `Unavailable` if the store does not answer or refuses the guard's
    credentials.

    Args:
        client: from `make_client`.
        name: name of the bucket.
    """

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def head(self, key: str, version_id: str | None = None) -> ObjectFacts:
        """The facts of a version; None means the latest one.

        Raises:
            ObjectChanged: there is no such object or version.
        """
        with self._translated(key):
            answer = self.client.head_object(Bucket=self.name, Key=key, **_version(version_id))
        return self._facts(key, answer, answer["ContentLength"])

    def versioned(self) -> bool:
        """Whether new objects get version ids."""
        with self._translated(""):
            return bool(
                self.client.get_bucket_versioning(Bucket=self.name).get("Status") == "Enabled"
            )

    def uploaded_at(self, facts: ObjectFacts) -> datetime | None:
        """When the store took this version, in an order without ties under one key.

        S3 counts in seconds and lists a key's versions newest first: each older version of the same
        second adds a microsecond.
        """
        if facts.modified is None:
            return None
        seen, older = facts.version_id is None, 0
        for row in self.versions(facts.key):
            same = row.key == facts.key and row.modified is not None
            if not same or (row.modified and row.modified < facts.modified):
                break
            older += seen
            seen = seen or row.version_id == facts.version_id
        return facts.modified + timedelta(microseconds=min(older, 999_999))

    def stream(self, facts: ObjectFacts, chunk: int = CHUNK) -> Iterator[bytes]:
        """The bytes of exactly this object, once; memory stays within a few chunks.

        Raises:
            ObjectChanged: it was deleted or replaced before or during the read.
        """
        pinned = _version(facts.version_id) or {"IfMatch": facts.etag}
        with self._translated(facts.key):
            answer = self.client.get_object(Bucket=self.name, Key=facts.key, **pinned)
        with closing(answer["Body"]) as body:
            if (answer["ETag"], answer["ContentLength"]) != (facts.etag, facts.size):
                raise self._replaced(facts.key)
            left = facts.size
            chunks = body.iter_chunks(chunk)
            while True:
                with self._translated(facts.key):
                    part = next(chunks, None)
                if part is None:
                    break
                left -= len(part)
                yield part
            if left:
                raise Unavailable(
                    f"The store sent {facts.size - left} of {facts.size} bytes of an object; try "
                    "again."
                )

    def read_small(self, key: str, limit: int) -> tuple[bytes, ObjectFacts] | None:
        """The latest version of a small object, whole, with its facts; None if there is none.

        Raises:
            ArtifactRejected: it is larger than `limit` bytes; code `object_too_large`.
        """
        try:
            with self._translated(key):
                answer = self.client.get_object(Bucket=self.name, Key=key)
        except ObjectChanged:
            return None
        with closing(answer["Body"]) as body:
            size = answer["ContentLength"]
            if size > limit:
                name = key.rpartition("/")[2]
                raise ArtifactRejected(
                    f"{name} is larger than {limit} bytes.", code="object_too_large"
                )
            with self._translated(key):
                data = body.read()
        return data, self._facts(key, answer, size)

    def latest(self, prefix: str = "") -> Iterator[ObjectFacts]:
        """The latest version of every object under `prefix` that is not deleted.

        The facts lack owner and metadata.
        """
        for row in self._listed(prefix):
            if row.get("IsLatest"):
                yield self._listing(row)

    def versions(self, prefix: str = "") -> Iterator[ObjectFacts]:
        """Every version of every object under `prefix`, without delete markers and metadata."""
        for row in self._listed(prefix):
            yield self._listing(row)

    def upload(self, path: Path, key: str) -> str | None:
        """Upload a local file, in parts if it is large.

        Returns:
            Its version id; None in a bucket without versioning.
        """
        from boto3.exceptions import Boto3Error

        with self._translated(key):
            try:
                self.client.upload_file(str(path), self.name, key)
            except Boto3Error as error:
                raise Unavailable(
                    f"The upload to {self.name!r} failed; check the guard's rights there."
                ) from error
        return self.head(key).version_id

    def keys_after(self, prefix: str, after: str) -> list[str]:
        """The names under `prefix` that sort behind `after`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix, StartAfter=after
        )
        with self._translated(""):
            return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def put_new(self, key: str, data: bytes) -> None:
        """Store a small object under a name that has none.

        Where there is one already, it stays (a store that does not know conditional writes
        replaces it, and keeps the older version where the bucket is versioned).
        """
        with self._translated(key):
            try:
                self.client.put_object(Bucket=self.name, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code", "")) not in _REPLACED:
                    raise

    def tags(self, key: str, version_id: str) -> dict[str, str]:
        """The tags of a version.

        Raises:
            ObjectChanged: there is no such object or version.
        """
        with self._translated(key):
            answer = self.client.get_object_tagging(Bucket=self.name, Key=key, VersionId=version_id)
        return {row["Key"]: row["Value"] for row in answer["TagSet"]}

    def put_tags(self, key: str, version_id: str, tags: Mapping[str, str]) -> None:
        """Give a version these tags, and no others.

        Raises:
            ObjectChanged: there is no such object or version.
        """
        rows = [{"Key": name, "Value": text} for name, text in tags.items()]
        with self._translated(key):
            self.client.put_object_tagging(
                Bucket=self.name, Key=key, VersionId=version_id, Tagging={"TagSet": rows}
            )

    def policy(self) -> dict[str, Any]:
        """The bucket's policy; empty where it has none."""
        with self._translated(""):
            try:
                text = self.client.get_bucket_policy(Bucket=self.name)["Policy"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchBucketPolicy":
                    return {}
                raise
        return dict(json.loads(text))

    def put_policy(self, policy: Mapping[str, Any]) -> None:
        """Replace the bucket's policy."""
        with self._translated(""):
            self.client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def _listed(self, prefix: str) -> Iterator[Any]:
        pages = iter(
            self.client.get_paginator("list_object_versions").paginate(
                Bucket=self.name, Prefix=prefix
            )
        )
        while True:
            with self._translated(""):
                page = next(pages, None)
            if page is None:
                return
            yield from page.get("Versions", [])

    def _listing(self, row: Mapping[str, Any]) -> ObjectFacts:
        return ObjectFacts(
            bucket=self.name,
            key=row["Key"],
            version_id=_real(row.get("VersionId")),
            size=row["Size"],
            etag=row["ETag"],
            owner=row.get("Owner", {}).get("ID"),
            modified=_second(row.get("LastModified")),
        )

    def _facts(self, key: str, answer: Mapping[str, Any], size: int) -> ObjectFacts:
        return ObjectFacts(
            bucket=self.name,
            key=key,
            version_id=_real(answer.get("VersionId")),
            size=size,
            etag=answer["ETag"],
            metadata=answer.get("Metadata", {}),
            modified=_second(answer.get("LastModified")),
        )

    def _replaced(self, key: str) -> ObjectChanged:
        name = key.rpartition("/")[2]
        return ObjectChanged(
            f"{name!r} was replaced while the guard read it; the new upload gets its own scan.",
            code="object_replaced",
        )

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _REPLACED:
                raise self._replaced(key) from error
            if key and code in _GONE:
                raise ObjectChanged(
                    f"{key.rpartition('/')[2]!r} is not in the bucket any more."
                ) from error
            if key and code in _MALFORMED:
                raise InputError(
                    "The store does not take this key or version id.", code="bad_object_name"
                ) from error
            raise Unavailable(
                f"Bucket {self.name!r} answers {code}; check its name and the guard's rights."
            ) from error
        except BotoCoreError as error:
            raise _away(error) from error


def _away(error: Exception) -> Unavailable:
    return Unavailable(
        f"The object store does not answer ({type(error).__name__}); check GUARD_S3_ENDPOINT."
    )


def _second(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC).replace(microsecond=0)


def _version(version_id: str | None) -> dict[str, str]:
    return {} if version_id is None else {"VersionId": version_id}


def _real(version_id: str | None) -> str | None:
    return None if version_id in (None, "", "null") else version_id
