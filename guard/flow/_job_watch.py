"""What is asked of a running job every half a second: is it still ours, wanted and in budget?"""

import time
from typing import TYPE_CHECKING

from guard.core.errors import Cancelled, MethodFailed
from guard.store import training_jobs
from guard.store.session import transaction

if TYPE_CHECKING:
    from guard.flow._job_files import JobFiles
    from guard.flow._lease import HeldJob
    from guard.flow.context import Guard
    from guard.store.training_rows import TrainingJobRow

EVERY = 1.0  # seconds between two looks at the row
#: An estimate of the time left needs this much work behind it, in seconds and as a share.
SURE_SECONDS, SURE_SHARE = 5.0, 0.02
NOTE = 200  # characters


class Watch:
    """The progress callback of one job; it ends the job by an exception.

    Args:
        job: the row as it was when this worker began.
        files: kept after each look at the row; None for a job that keeps none.
    """

    def __init__(
        self,
        guard: "Guard",
        held: "HeldJob",
        job: "TrainingJobRow",
        files: "JobFiles | None" = None,
    ) -> None:
        self._guard, self._held, self._job, self._files = guard, held, job, files
        self._begun = time.monotonic()
        self._last = -EVERY
        self._from: tuple[float, float] | None = None  # seconds and share when work began

    @property
    def spent(self) -> float:
        """Seconds of work by this worker and those before it."""
        return self._job.spent_seconds + time.monotonic() - self._begun

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._job.budget_seconds - self.spent

    def __call__(self, done: float, note: str = "") -> None:
        """Look after the job; `done` in 0..1.

        Raises:
            LeaseLost: another worker took it over.
            Cancelled: a person ended it.
            MethodFailed: its budget is used up.
        """
        self._held.alive()
        if self.left <= 0:
            raise MethodFailed(
                f"The job used up its budget of {self._job.budget_seconds:g} s at {done:.0%}; "
                "nothing came of it. An operator raises budget_seconds in [retrain] of the policy.",
                code="job_over_budget",
            )
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        with transaction(self._guard.engine) as session:
            asked = training_jobs.keep(
                session,
                self._held.lease,
                self._guard.now(),
                done=done,
                note=note[:NOTE],
                spent_seconds=self.spent,
                seconds_left=self._estimate(done),
            )
        if asked is not None:
            raise cancelled(asked)
        if self._files is not None:
            self._files.ship()

    def _estimate(self, done: float) -> float | None:
        """Seconds left by what this worker did so far; None where that is too little to tell."""
        spent = time.monotonic() - self._begun
        if self._from is None:
            self._from = (spent, done)
        seconds, share = spent - self._from[0], done - self._from[1]
        if seconds < SURE_SECONDS or share < SURE_SHARE:
            return None
        return seconds / share * (1 - done)


def cancelled(by: str) -> Cancelled:
    """The error that ends a job on request."""
    return Cancelled(f"{by} cancelled the job; nothing came of it.", code="job_cancelled")
