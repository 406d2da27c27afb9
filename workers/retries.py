"""Decide by an error's type what happens to the stage that failed.

If the bytes are at fault, the stage itself ends the scan and nothing is retried. If another service
is at fault, the stage is tried again for up to an hour. If the guard is at fault, or the cause is
unknown, it is tried three times and then recorded as a dead letter. `pause` makes all pauses.
"""

import random
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
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0


@dataclass(frozen=True)
class Answer:
    """What to do: `drop` the message, try again `later`, or `bury` it as a dead letter.

    Attributes:
        what: `drop`, `later` or `bury`.
        pause: seconds to wait before the next try.
    """

    what: str
    pause: float = 0.0


def is_away(error: BaseException) -> bool:
    """Whether an error says that another service does not answer, and nobody is at fault here."""
    return isinstance(error, (Unavailable, DBAPIError))


def pause(tries: int) -> float:
    """Seconds until the next try after `tries` in a row.

    It doubles up to `LONGEST_PAUSE`; up to half of it is left out by chance, so that what failed
    together does not come back together.
    """
    most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(max(tries - 1, 0), 20))
    return random.uniform(most / 2, most)  # noqa: S311 - no secret: it spreads retries


def after(error: BaseException, *, attempts: int, outages: int, waited: float) -> Answer:
    """Decide from the error and what came before it.

    Args:
        error: what the stage raised.
        attempts: the tries so far that took a worker down or failed for a cause in the guard, this
            one included.
        outages: the tries in a row before this one that ended because a service was away.
        waited: seconds since the first of those.
    """
    if isinstance(error, LeaseLost):
        return Answer("drop")
    if is_away(error):
        return Answer("bury") if waited > PATIENCE_SECONDS else Answer("later", pause(outages + 1))
    if isinstance(error, (InputError, IntegrityMismatch, NotServable)):
        return Answer("bury")
    return Answer("later", pause(attempts)) if attempts < MAX_CRASHES else Answer("bury")
