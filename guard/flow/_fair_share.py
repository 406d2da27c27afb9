"""Let no uploader fill the queues: each has only so many scans open, and the rest waits its turn."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from guard.store import intake

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SECONDS = 30.0
LONGEST = 600.0
WAITING = "Its uploader has as many scans open as GUARD_UPLOADER_SCANS allows; it waits its turn."


def must_wait(session: "Session", owners: Collection[str], limit: int) -> bool:
    """Whether one of the owners of a key has as many scans open as are allowed.

    Where no prefix of the key has an owner, nobody knows whose it is, and nothing waits.
    """
    return any(intake.open_scans_of(session, owner, limit) >= limit for owner in sorted(owners))


def pause(age: float) -> float:
    """How long to wait until the next look, in seconds: longer for what has waited long."""
    return min(max(SECONDS, age / 4), LONGEST)
