"""A worker that is told to end does end, also where its broker is gone.

A warm shutdown (SIGTERM) waits for the running task, however long, and a worker whose broker dies
while it connects waits in kombu for the broker, forever; neither looks at further signals. Where
the broker is away there is nothing to wait for: nobody would hear of the task's end, its lease runs
out, and another worker takes the scan (docs/decisions/0004).
"""

import os
import threading
import time
from collections.abc import Callable

import psutil
import structlog
from celery import Celery

log = structlog.get_logger()

#: For so many questions, one a second, a broker may be away while a worker ends; one that restarts
#: needs less.
PATIENCE = 10


def watch(app: Celery) -> None:
    """Call it as the shutdown begins: from now on the worker outlives no lost broker."""
    threading.Thread(
        target=lambda: end_without(lambda: answers(app), end_hard), name="shutdown", daemon=True
    ).start()


def end_without(
    is_there: Callable[[], bool],
    end: Callable[[], None],
    *,
    patience: int = PATIENCE,
    pause: float = 1.0,
) -> None:
    """Ask `is_there` every `pause` seconds; after `patience` times no in a row call `end`."""
    misses = 0
    while misses < patience:
        time.sleep(pause)
        misses = 0 if is_there() else misses + 1
    end()


def answers(app: Celery) -> bool:
    """Whether the broker can be reached, by a connection of its own."""
    try:
        with app.connection_for_read() as connection:
            connection.connect()
    except Exception:  # noqa: BLE001 - every transport has errors of its own; all mean "away"
        return False
    return True


def end_hard() -> None:
    """Kill all that this process has started, and end it with exit status 1."""
    log.warning("worker_ends_without_broker")
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)
