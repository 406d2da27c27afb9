"""What happens after an error is decided by its type, in one table.

Bytes at fault: the stage itself concludes, there is nothing to retry. World at fault: later, for up
to an hour.
Us or unknown: three tries, then a dead letter with a readable row.
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
    """What to do: `drop` the message, try again `later`, or `bury` it."""

    what: str
    pause: float = 0.0


def after(error: BaseException, *, attempts: int, waited: float) -> Answer:
    """Decide from the error, the number of tries so far, and the seconds since the first one."""
    if isinstance(error, LeaseLost):
        return Answer("drop")
    if isinstance(error, (Unavailable, DBAPIError)):
        if waited > PATIENCE_SECONDS:
            return Answer("bury")
        return Answer("later", min(LONGEST_PAUSE, 2.0 ** min(attempts, 6)))
    if isinstance(error, (InputError, IntegrityMismatch, NotServable)):
        return Answer("bury")
    return Answer("later", 2.0**attempts) if attempts < MAX_CRASHES else Answer("bury")
