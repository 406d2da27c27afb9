"""What distinguishes one upload from every other under its key.

A version id does. Without versions it is the ETag, which is the same for the same bytes: then the
store's LastModified shows that they were uploaded again. It counts in seconds, so a repetition
within the second of the upload before is not noticed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from guard.core.plain import iso
from guard.flow import _object_keys
from guard.store import intake

if TYPE_CHECKING:
    from guard.events.bucket import ObjectFacts


def pin_of(facts: "ObjectFacts", last: Mapping[tuple[str, str], tuple[datetime, str]]) -> str:
    """The pin of an upload.

    Args:
        last: what `intake.last_uploads` knows about its key.
    """
    seen = last.get((_object_keys.shown(facts.key), facts.pin))
    if facts.version_id is not None or facts.modified is None or seen is None:
        return facts.pin
    at, pin = seen
    return pin if facts.modified <= at else f"{facts.pin}{intake.AGAIN}{iso(facts.modified)}"


def is_still(facts: "ObjectFacts", pin: str) -> bool:
    """Whether the object is still the one that was nominated by `pin`, which is an ETag's."""
    etag, again, at = pin.partition(intake.AGAIN)
    same_time = not again or (facts.modified is not None and iso(facts.modified) == at)
    return facts.pin == etag and same_time
