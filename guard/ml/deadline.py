"""A progress callback that also watches the clock."""

import time

from guard.core.errors import OutOfTime
from guard.core.progress import Progress


def guarded(progress: Progress, *, deadline: float) -> Progress:
    """Wrap `progress` so that a call after `deadline` (on `time.monotonic`) raises `OutOfTime`."""

    def watch(done: float, note: str = "") -> None:
        if time.monotonic() > deadline:
            raise OutOfTime(
                "The method ran out of its time budget; raise the budget or use a smaller clean "
                "set."
            )
        progress(done, note)

    return watch
