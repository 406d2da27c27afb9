"""Decide by an error's type what happens to the stage that failed.

If the bytes are at fault, the stage itself ends the scan and nothing is retried. If another service
is at fault, the stage is tried again for up to an hour. If the guard is at fault, or the cause is
unknown, it is tried three times and then recorded as a dead letter.
"""

from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from guard.core.errors import (
    InputError,
    IntegrityMismatch,
    LeaseLost,
    NotServable,
    Unavailable,
)
from guard.flow.run_stage import MAX_CRASHES

PATIENCE_SECONDS = 3600.0
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Answer:
    """What to do: `drop` the message, try again `later`, or `bury` it as a dead letter.

    Attributes:
        what: `drop`, `later` or `bury`.
        pause: seconds to wait before the next try.
    """

    what: str
    pause: float = 0.0


def after(error: BaseException, *, attempts: int, waited: float) -> Answer:
    """Decide from the error, the number of tries so far, and the seconds since the first one."""
    if isinstance(error, LeaseLost):
        return Answer("drop")
    if isinstance(error, (Unavailable, DBAPIError)):
        if waited > PATIENCE_SECONDS:
            return Answer("bury")
        # Attempts count crashes only; the longer it was away, the longer it may stay.
        return Answer("later", min(LONGEST_PAUSE, max(2.0 ** min(attempts, 6), waited / 4)))
    if isinstance(error, (InputError, IntegrityMismatch, NotServable)):
        return Answer("bury")
    return Answer("later", 2.0**attempts) if attempts < MAX_CRASHES else Answer("bury")
