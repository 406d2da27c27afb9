"""Show the progress of long work on stderr: a bar on a terminal, JSON lines otherwise."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guard.core.progress import left_text, seconds_left
from guard.core.text import printable

if TYPE_CHECKING:
    from guard.core.progress import Progress

SECONDS_BETWEEN_LINES = 2.0


@contextmanager
def watched(task: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator["Progress"]:
    """A progress callback for the duration of the block.

    `task` is the name that the bar and the lines show.
    """
    if sys.stderr.isatty():
        with _bar(task) as progress:
            yield progress
    else:
        yield _lines(task, clock)


@contextmanager
def _bar(task: str) -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Progress(*columns, console=console, transient=True) as shown:
        bar = shown.add_task(task, total=1.0, note="starting", left="")

        def progress(done: float, note: str = "") -> None:
            shown.update(
                bar,
                completed=min(1.0, max(0.0, done)),
                note=printable(note, limit=60),
                left=left_text(seconds_left()),
            )

        yield progress


def _lines(task: str, clock: Callable[[], float]) -> "Progress":
    last = -SECONDS_BETWEEN_LINES

    def progress(done: float, note: str = "") -> None:
        nonlocal last
        now = clock()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            line = {"event": "progress", "task": task, "done": round(done, 4), "note": note}
            if (left := seconds_left()) is not None:
                line["seconds_left"] = round(left, 1)
            print(json.dumps(line), file=sys.stderr, flush=True)

    return progress
