"""Delete rows that nothing reads any more, a bounded number each time (`guard.store.kept`)."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from guard.store import kept
from guard.store.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.flow.context import Guard

BATCH = 1000  # rows in one transaction: on SQLite others wait meanwhile
#: Of one table in one round. A round every five minutes keeps up with over three hundred a second.
MOST = 100_000


def tidy(guard: "Guard", *, batch: int = BATCH, most: int = MOST) -> Mapping[str, int]:
    """Delete what is older than the settings say; how many rows of each table.

    What a round leaves behind is left to the next one.

    Args:
        guard: with the database and the settings.
        batch: the most rows in one transaction.
        most: the most rows of one table.
    """
    settings, now = guard.settings, guard.now()
    times = {
        "keep_sent_hours": now - timedelta(hours=settings.keep_sent_hours),
        "keep_ended_days": now - timedelta(days=settings.keep_ended_days),
    }
    deleted = {}
    for name, one in kept.PASSING.items():
        if one.old is not None:
            act = partial(kept.prune, name=name, before=times[one.kept])
            deleted[name] = in_batches(guard, act, batch=batch, most=most)
    return deleted


def in_batches(
    guard: "Guard", act: "Callable[..., int]", *, batch: int = BATCH, most: int = MOST
) -> int:
    """Call `act(session, limit=...)`, each time in a transaction, until little is left to do.

    Args:
        guard: with the database.
        act: does at most `limit` of something, and returns how many.
        batch: the limit.
        most: the most of all calls together.
    """
    done = 0
    while done < most:
        limit = min(batch, most - done)
        with transaction(guard.engine) as session:
            found = act(session, limit=limit)
        done += found
        if found < limit:
            break
    return done
