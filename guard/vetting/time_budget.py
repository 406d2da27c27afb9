"""The time budget of a policy, kept by doing less; what was not looked at is not covered.

A detector that does not fit leaves evidence that it could not look, so that a policy which requires
it clears nothing.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from guard.core.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """The time of all detectors on one model.

    Attributes:
        limit: seconds after which whatever runs is ended.
        budget: the policy's seconds; None for none.
        clock: seconds that only go up.
        started: the clock at the beginning.
    """

    limit: float = math.inf
    budget: float | None = None
    clock: Callable[[], float] = time.monotonic
    started: float

    @classmethod
    def begun(cls, limit: float, budget: float | None) -> "TimeBudget":
        """A budget that runs from now on."""
        return cls(limit=limit, budget=budget, started=time.monotonic())

    @property
    def _spent(self) -> float:
        return self.clock() - self.started

    @property
    def _of_budget(self) -> float:
        """What is left of the budget."""
        return math.inf if self.budget is None else self.budget - self._spent

    @property
    def left(self) -> float:
        """Seconds that the next detector may take."""
        return max(0.0, min(self.limit - self._spent, self._of_budget))

    def spared(self, blank: Evidence, needs: float | None) -> Evidence | None:
        """The evidence of a detector that is not run, since it does not fit; None where it may run.

        Args:
            blank: its evidence as long as it has not looked.
            needs: the seconds that it usually takes; None where nobody knows, and it is tried as
                long as anything is left.
        """
        left = self._of_budget
        if self.budget is None or (left > 0 if needs is None else needs <= left):
            return None
        stated = "takes a time that nobody knows" if needs is None else f"takes about {needs:.3g} s"
        return replace(
            blank,
            reason=f"Skipped: over budget. {blank.method} {stated}, and {max(0.0, left):.3g} s of "
            f"the policy's {self.budget:g} s are left; raise budget in [time] of the policy.",
            over_budget=self.budget,
        )

    def ended(self, blank: Evidence, sentence: str) -> Evidence:
        """The evidence of a detector that ran out of time, for which `sentence` is the reason."""
        if self.budget is None or self._of_budget > 0:
            return replace(blank, reason=sentence)
        return replace(
            blank,
            reason=f"Ended: over budget. {blank.method} did not end within the policy's "
            f"{self.budget:g} s; raise budget in [time] of the policy.",
            over_budget=self.budget,
        )
