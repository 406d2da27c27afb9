"""A versioned bucket in memory, behind the calls of boto3's client that the service makes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from botocore.exceptions import ClientError

from guard.core.digests import sha256


@dataclass(frozen=True)
class Version:
    """One version of one key; `data` is None for a delete marker."""

    id: str
    data: bytes | None
    modified: datetime

    @property
    def etag(self) -> str:
        return f'"{sha256(self.data or b"")[:32]}"'


class _Body:
    """The body of an answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        yield from (self._data[at : at + size] for at in range(0, len(self._data), size))

    def read(self) -> bytes:
        return self._data

    def close(self) -> None:
        pass


@dataclass
class Store:
    """Every bucket of one S3; `away` draws whether a call is not answered."""

    now: Callable[[], datetime]
    rng: Random = field(default_factory=lambda: Random(0))
    away: float = 0.0
    objects: dict[tuple[str, str], list[Version]] = field(default_factory=dict)

    def put(self, bucket: str, key: str, data: bytes | None) -> Version:
        """A new version, or with None a delete marker."""
        there = self.objects.setdefault((bucket, key), [])
        made = Version(f"v{len(there):03d}{self.rng.getrandbits(32):08x}", data, self.now())
        there.append(made)
        return made

    # What boto3's client is asked for.

    def head_object(self, Bucket: str, Key: str, **more: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        return self._answer(self._find("HeadObject", Bucket, Key, more))

    def get_object(self, Bucket: str, Key: str, **more: str) -> dict[str, Any]:  # noqa: N803
        found = self._find("GetObject", Bucket, Key, more)
        return {**self._answer(found), "Body": _Body(found.data or b"")}

    def put_object(self, Bucket: str, Key: str, Body: bytes, **more: str) -> dict[str, Any]:  # noqa: N803
        self.maybe_away("PutObject")
        if more.get("IfNoneMatch") and self.objects.get((Bucket, Key)):
            raise _error("PutObject", "PreconditionFailed")
        return {"VersionId": self.put(Bucket, Key, Body).id}

    def get_paginator(self, name: str) -> "_Pages":
        return _Pages(self, name)

    def _find(self, call: str, bucket: str, key: str, more: Mapping[str, str]) -> Version:
        self.maybe_away(call)
        versions = self.objects.get((bucket, key), [])
        wanted = more.get("VersionId")
        found = [one for one in versions if wanted in (None, one.id)]
        if not found:
            raise _error(call, "NoSuchKey" if wanted is None else "NoSuchVersion")
        if found[-1].data is None:
            raise _error(call, "NoSuchKey" if wanted is None else "MethodNotAllowed")
        if more.get("IfMatch", found[-1].etag) != found[-1].etag:
            raise _error(call, "PreconditionFailed")
        return found[-1]

    def _answer(self, found: Version) -> dict[str, Any]:
        return {
            "ContentLength": len(found.data or b""),
            "ETag": found.etag,
            "VersionId": found.id,
            "LastModified": found.modified,
            "Metadata": {"submitted-by": "whoever"},
        }

    def maybe_away(self, call: str) -> None:
        if self.away and self.rng.random() < self.away:
            raise _error(call, "SlowDown")


@dataclass(frozen=True)
class _Pages:
    store: Store
    call: str

    def paginate(self, Bucket: str, Prefix: str, StartAfter: str = "") -> Iterator[dict[str, Any]]:  # noqa: N803
        self.store.maybe_away(self.call)
        keys = sorted(
            key for bucket, key in self.store.objects if bucket == Bucket and key.startswith(Prefix)
        )
        if self.call == "list_objects_v2":
            yield {"Contents": [{"Key": key} for key in keys if key > StartAfter]}
            return
        yield {
            "Versions": [
                {
                    "Key": key,
                    "VersionId": one.id,
                    "Size": len(one.data),
                    "ETag": one.etag,
                    "LastModified": one.modified,
                    "IsLatest": number == 0,
                }
                for key in keys
                for number, one in enumerate(reversed(self.store.objects[Bucket, key]))
                if one.data is not None
            ]
        }


def _error(call: str, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, call)
