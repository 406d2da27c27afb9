"""How far a scan is, for those who wait: in its notes, and in the worker's log."""

import math
import time
from typing import TYPE_CHECKING

import structlog

from guard.core.errors import GuardError, LeaseLost
from guard.core.notes import ScanProgress
from guard.core.progress import seconds_left
from guard.store import scans
from guard.store.session import transaction

if TYPE_CHECKING:
    from guard.flow._lease import Held
    from guard.flow.context import Guard

EVERY, LOGGED = 5.0, 30.0  # seconds between two notes, and between two lines of the log
NOTE = 200  # characters
_LOG = structlog.get_logger()


class Shown:
    """The progress of the job that a scan waits for; it ends the job once the scan is lost.

    A database that does not answer holds up no scan: the next note may get through.
    """

    def __init__(self, guard: "Guard", held: "Held") -> None:
        self._guard, self._held = guard, held
        self._noted = self._logged = -math.inf

    def __call__(self, done: float, note: str = "") -> None:
        """`done` in 0..1.

        Raises:
            LeaseLost: another worker took the scan over.
        """
        self._held.alive()
        now = time.monotonic()
        if now - self._noted < EVERY or not math.isfinite(done):
            return
        self._noted, left = now, seconds_left()
        state = ScanProgress(
            done=round(min(1.0, max(0.0, done)), 4),
            note=note[:NOTE],
            seconds_left=None if left is None else round(left, 1),
        )
        if now - self._logged >= LOGGED:
            self._logged = now
            _LOG.info(
                "scan_progress", done=state.done, note=state.note, seconds_left=state.seconds_left
            )
        try:
            with transaction(self._guard.engine) as session:
                scans.show(session, self._held.lease, self._guard.now(), state)
        except LeaseLost:
            raise
        except GuardError:
            return
