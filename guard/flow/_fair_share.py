"""Let no uploader fill the queues: each has only so many scans open; the rest waits its turn."""

from collections.abc import Collection
from datetime import timedelta
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


def turn(age: timedelta) -> tuple[float, str]:
    """In how many seconds to look again, longer for what has waited long; and why it waits."""
    return min(max(SECONDS, age.total_seconds() / 4), LONGEST), WAITING
