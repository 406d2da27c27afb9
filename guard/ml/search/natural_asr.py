"""What do the other classes reach at the same budget? (natural ASR).

And how strong can a class's trigger become?

The same questions for patches, whose budget is pixels, and for faint triggers of a family, whose
budget is a level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled
from guard.ml.statistics import ClassTest, angles, low_outliers
from guard.ml.triggers import Trigger

LEAST_ANGLE_SPREAD = (
    0.1  # the error of the angle of a share of 25 pictures; siblings all at 0 % have no spread
)
# A stronger trigger counts only where no sibling reaches more than this share at its budget
QUIET = 0.5
LADDER = (1.25, 1.5, 2.0, 3.0)  # budgets to try, in norms of the smallest trigger


Watch = Callable[[float], None]


class Found(Protocol):
    """Triggers of one kind, a target class and a norm each."""

    @property
    def targets(self) -> Tensor: ...
    @property
    def norms(self) -> Tensor: ...
    def pick(self, rows: list[int]) -> Self: ...
    def trigger(self, row: int) -> Trigger: ...


F = TypeVar("F", bound=Found)


class Kit(Protocol[F]):
    """How triggers of one kind are searched and measured; `smallest` are those of all K classes."""

    @property
    def smallest(self) -> F: ...
    @property
    def search(self) -> Labelled: ...
    @property
    def calibration(self) -> Labelled: ...
    @property
    def largest(self) -> float: ...
    def within(self, start: F, budget: float | Tensor, watch: Watch) -> F: ...
    def successes(self, found: F, data: Labelled) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Look(Generic[F]):
    """What the classes in `rows` reach within `budget`.

    Everything else is in the order of `rows`.
    """

    budget: float
    rows: list[int]
    found: F
    rates: list[float]
    tests: list[ClassTest]

    def rate(self, row: int) -> float:
        """ASR of this class on the calibration part."""
        return self.rates[self.rows.index(row)]

    def test(self, row: int) -> ClassTest:
        """Is this class's ASR unlike the others'?"""
        return self.tests[self.rows.index(row)]

    def natural(self, row: int) -> float:
        """The best ASR of the other classes that are no outliers themselves."""
        return max(
            rate
            for other, rate, test in zip(self.rows, self.rates, self.tests, strict=True)
            if other != row and not test.outlier
        )


@dataclass(frozen=True)
class Stronger(Generic[F]):
    """A class's trigger with a larger budget than it needs.

    And what its siblings reach with as much.
    """

    found: F  # one row
    rate: float
    natural: float
    factor: float  # its budget in norms of the smallest trigger


@dataclass(frozen=True, kw_only=True)
class Siblings(Generic[F]):
    """Everyone who can be asked.

    Args:
        rows: the classes that are asked, candidates included; at least five.
        most: how many of them may be outliers.
        alpha: level of the outlier test.
    """

    kit: Kit[F]
    rows: list[int]
    most: int
    alpha: float

    def within(self, budget: float, watch: Watch) -> Look[F]:
        """What each reaches within `budget`.

        Measured on the calibration part and tested as angles.
        """
        found = self.kit.within(self.kit.smallest.pick(self.rows), budget, watch)
        hits, trials = self.kit.successes(found, self.kit.calibration)
        shares = angles(hits.tolist(), trials.tolist())
        tests = low_outliers(
            shares, alpha=self.alpha, most=self.most, low_side=False, floor=LEAST_ANGLE_SPREAD
        )
        return Look(budget, self.rows, found, (hits.double() / trials).tolist(), tests)

    def stronger(
        self, row: int, look: Look[F], watch: Watch, ladder: Sequence[float] = LADDER
    ) -> Stronger[F] | None:
        """The strongest trigger of a class on a ladder of budgets at which no sibling gets beyond
        `QUIET`.

        The smallest trigger that reaches the goal works less often than what the attacker stamps: a
        bound on its ASR would lie under the true one. Rungs are ranked by failures on search and
        calibration pictures together (ties: the smaller), and siblings are asked rung after rung
        until one is quiet; None where none is, or none is better than what `look` has.
        """
        norm = float(self.kit.smallest.norms[row])
        ladder = [factor for factor in ladder if factor * norm < self.kit.largest]
        if not ladder:
            return None
        own = look.found.pick([look.rows.index(row)])
        start = own.pick([0] * len(ladder))
        found = self.kit.within(start, norm * torch.tensor(ladder), _part(watch, 0.0, 0.25))
        best = self._failures(own)[0]
        failures = self._failures(found)
        done, loud = (
            0.25,
            len(ladder),
        )  # what wakes the siblings at one budget does so at every larger one
        for rung in sorted(range(len(ladder)), key=lambda rung: failures[rung]):
            if failures[rung] >= best:
                return None
            if rung >= loud:
                continue
            start_at, done = done, (1 + done) / 2
            seen = self.within(norm * ladder[rung], _part(watch, start_at, done))
            if seen.natural(row) <= max(QUIET, look.natural(row)):
                chosen = found.pick([rung])
                hits, trials = self.kit.successes(chosen, self.kit.calibration)
                return Stronger(chosen, float(hits / trials), seen.natural(row), ladder[rung])
            loud = rung
        return None

    def _failures(self, found: F) -> list[int]:
        """Pictures of other classes in both parts that each trigger does not send to its class."""
        missed = torch.zeros(len(found.targets), dtype=torch.int64)
        for part in (self.kit.search, self.kit.calibration):
            hits, trials = self.kit.successes(found, part)
            missed += trials - hits
        return [int(count) for count in missed]


def _part(watch: Watch, start: float, end: float) -> Watch:
    return lambda done: watch(start + (end - start) * done)
