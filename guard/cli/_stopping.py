"""Ctrl-C during long work that keeps its state: the first one stops it where that is whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from guard.core.errors import Cancelled
from guard.core.progress import Progress


@contextmanager
def stoppable(progress: Progress) -> Iterator[Progress]:
    """A progress that raises `Cancelled` once Ctrl-C was pressed; a second one stops at once."""
    stopped = False

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    def watch(done: float, note: str = "") -> None:
        progress(done, note)
        if stopped:
            raise Cancelled("Stopped.")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
