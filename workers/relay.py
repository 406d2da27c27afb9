"""The relay, which sends each outbox row as a Celery message at least once.

Run as `python -m workers.relay`, once or several times: each takes rows of its own. A row is marked
after the broker took the message; a crash between the two sends the message again once nobody has
the row any more, which every stage tolerates.
"""

import signal
import threading
import time

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from guard.bootstrap import open_guard
from guard.core.errors import Unavailable
from guard.flow.context import Guard
from guard.logs import configure
from guard.store import outbox
from guard.store.changes import Changes
from guard.store.session import reading, transaction
from workers.alive import Alive
from workers.app import STAGE_QUEUE, app

PAUSE_SECONDS = 0.05  # a scan takes four hops or more, and each waits half of it on average
LOOK_SECONDS = 0.5  # for messages that become due by the clock alone
BATCH = 100
#: How long a relay has the rows that it took: longer than a batch takes where the broker answers
#: late, and no longer than a message may wait for a relay that died.
HOLD_SECONDS = 20.0

log = structlog.get_logger()


def send_due(guard: Guard, app: Celery) -> int:
    """Send all messages that are due, and return their number.

    Raises:
        OperationalError: the broker did not take a message; those before it are marked as sent.
    """
    with reading(guard.engine) as session:
        if not outbox.due(session, guard.now(), 1):
            return 0  # a look takes no write lock
    with transaction(guard.engine) as session:
        rows = outbox.take(session, guard.now(), HOLD_SECONDS, BATCH)
    sent: list[int] = []
    # No transaction is open while messages go to the broker: a slow broker must not hold the
    # database's write lock.
    try:
        for row in rows:
            app.send_task(
                f"guard.{row.task}",
                kwargs=dict(row.payload),
                queue=STAGE_QUEUE.get(row.task, "control"),
                retry=False,
            )
            sent.append(row.id)
    finally:
        if rows:
            with transaction(guard.engine) as session:
                outbox.mark_sent(session, sent, guard.now())
                outbox.give_back(session, [row.id for row in rows[len(sent) :]])
    return len(sent)


def main() -> None:
    """Send until a signal stops the process; wait while broker or database is unavailable."""
    guard = open_guard()
    configure(guard.settings.log_level, json=True)
    stop, alive = threading.Event(), Alive(guard.settings.data_dir, "relay")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    changes, look_at = Changes(guard.engine), time.monotonic()
    while not stop.is_set():
        alive.mark()
        if not changes.since_last() and time.monotonic() < look_at:
            stop.wait(PAUSE_SECONDS)
            continue
        try:
            busy = send_due(guard, app) == BATCH
        except (OperationalError, Unavailable, ConnectionError, TimeoutError) as error:
            log.warning("relay_waits", error=str(error))
            stop.wait(2)
            continue
        if not busy:
            look_at = time.monotonic() + LOOK_SECONDS
            stop.wait(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
