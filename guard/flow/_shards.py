"""Take an index and the shards beside it as one upload (`guard.core.shards`).

The event of a shard nominates its index. All of them are pinned together: a shard that is uploaded
again makes another upload of the index.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from guard.core.errors import ArtifactRejected
from guard.core.plain import iso
from guard.core.shards import MAX_SHARDS, is_index, opening, shard, stem
from guard.flow import _object_keys

if TYPE_CHECKING:
    from guard.events.bucket import Bucket, ObjectFacts

_MARK = "#shards="
_DIGITS = 32


def comes_in_parts(key: str) -> bool:
    """Whether this is an index or a shard, so that other objects may still be on their way."""
    return is_index(key) or shard(key.rpartition("/")[2]) is not None


def index_of(bucket: "Bucket", key: str) -> "ObjectFacts | None":
    """The index beside the shard at `key`; None where either is missing."""
    folder = _object_keys.folder(key)
    found = shard(key.removeprefix(folder))
    if found is None:
        return None
    wanted = folder + found.index
    return next((facts for facts in bucket.latest(wanted) if facts.key == wanted), None)


def parts_of(bucket: "Bucket", facts: "ObjectFacts", limit: int) -> "list[ObjectFacts]":
    """The objects of an upload: of an index itself and the shards beside it, else the one object.

    Shards that the index does not name are among them, and are refused when the file is inspected.

    Args:
        limit: the most bytes that all may have together.

    Raises:
        ArtifactRejected: there are too many, or they are too large.
    """
    if not is_index(facts.key):
        return [facts]
    folder = _object_keys.folder(facts.key)
    found, size = [], facts.size
    for one in bucket.latest(stem(facts.key)):
        named = shard(one.key.removeprefix(folder))
        if named is None or folder + named.index != facts.key:
            continue
        found.append(one)
        size += one.size
        if len(found) > MAX_SHARDS or size > limit:
            raise ArtifactRejected(
                f"There are over {MAX_SHARDS} shards, or they have over {limit} bytes together "
                "(GUARD_MAX_UPLOAD_BYTES).",
                code="object_too_large",
            )
    return [facts, *sorted(found, key=lambda one: one.key)]


def pin_of_all(own: str, parts: "Sequence[ObjectFacts]") -> str:
    """The pin of an upload whose first object's is `own`."""
    if not is_index(parts[0].key):
        return own
    pins = [f"{facts.key}\0{facts.pin}\0{_at(facts)}" for facts in parts[1:]]
    digest = hashlib.sha256("\0".join(pins).encode()).hexdigest()
    return f"{own}{_MARK}{digest[:_DIGITS]}"


def _at(facts: "ObjectFacts") -> str:
    """When an object without a version was uploaded: its ETag is the same for the same bytes."""
    return iso(facts.modified) if facts.version_id is None and facts.modified else ""


def newest(bucket: "Bucket", parts: "Sequence[ObjectFacts]") -> datetime | None:
    """When the last of these objects was uploaded; None where the store does not tell."""
    times = [bucket.uploaded_at(facts) for facts in parts]
    return max((one for one in times if one is not None), default=None)


def stream(bucket: "Bucket", parts: "Sequence[ObjectFacts]") -> Iterator[bytes]:
    """The bytes of an upload, packed where there are shards; memory stays within a few chunks.

    Raises:
        ObjectChanged: an object was deleted or replaced meanwhile.
    """
    if is_index(parts[0].key):
        shards = [(facts.key.rpartition("/")[2], facts.size) for facts in parts[1:]]
        yield opening(parts[0].key, parts[0].size, shards)
    for facts in parts:
        yield from bucket.stream(facts)
