"""Make a worker end on request even if its broker does not answer.

A warm shutdown (SIGTERM) waits for the running task, however long it takes, and a worker whose
broker fails while it connects waits in kombu for the broker forever; neither reacts to further
signals. Without the broker there is nothing to wait for: the end of the task cannot be reported,
its lease expires, and another worker takes the scan (docs/decisions/0004).
"""

import os
import threading
import time
from collections.abc import Callable

import psutil
import structlog
from celery import Celery

log = structlog.get_logger()

#: A worker that ends gives up its broker after this many failed checks, one a second; a broker that
#: restarts needs fewer.
PATIENCE = 10


def watch(app: Celery) -> None:
    """Start the check at the beginning of the shutdown; a lost broker then ends the worker."""
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
    """Call `is_there` every `pause` seconds; after `patience` misses in a row, call `end`."""
    misses = 0
    while misses < patience:
        time.sleep(pause)
        misses = 0 if is_there() else misses + 1
    end()


def answers(app: Celery) -> bool:
    """Whether the broker can be reached, tried with a separate connection."""
    try:
        with app.connection_for_read() as connection:
            connection.connect()
    except Exception:  # noqa: BLE001 - each transport has its own errors; all mean "unreachable"
        return False
    return True


def end_hard() -> None:
    """Kill all child processes of this process, and end it with exit status 1."""
    log.warning("worker_ends_without_broker")
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)
