"""The only content that is taken from an event: the object to look at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Nomination:
    """An object that exists according to somebody else.

    Facts come from `Bucket.head`, with the guard's own credentials.

    `version_id` is None where the event names none. `removed` marks a deletion or a delete marker.
    `source` names where the notice came from: s3, eventbridge, seaweedfs, sweep, manifest, shard,
    submit.
    """

    bucket: str
    key: str
    version_id: str | None
    source: str
    removed: bool = False
