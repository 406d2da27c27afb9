"""Measure the natural ASR, which the other classes reach at the same budget.

This module also searches for the strongest trigger of a class at which its siblings stay behind.
Both work for patches, whose budget is in pixels, and for minimal triggers of a family, whose budget
is a level.
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
    0.1  # the sampling error of a share of 25 images as an angle; siblings all at 0 % do not vary
)
# A stronger trigger counts only where no sibling reaches more than this share at its budget
QUIET = 0.5
LADDER = (1.25, 1.5, 2.0, 3.0)  # budgets to try, in norms of the smallest trigger


Watch = Callable[[float], None]


class Found(Protocol):
    """Triggers of one kind, each with a target class (int64 T) and a norm (float64 T)."""

    @property
    def targets(self) -> Tensor:
        """The target classes, int64 T."""

    @property
    def norms(self) -> Tensor:
        """The sizes in the unit of the budget, float64 T."""

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
    def within(self, start: F, budget: float | Tensor, watch: Watch) -> F:
        """The best trigger of each row within `budget`: one float for all rows, or float T."""

    def successes(self, found: F, data: Labelled) -> tuple[Tensor, Tensor]:
        """Hits and trials of each row on the images of other classes, int64 T, T."""


@dataclass(frozen=True)
class Look(Generic[F]):
    """The ASR (0..1) of the classes in `rows` within `budget`; all lists are in that order."""

    budget: float
    rows: list[int]
    found: F
    rates: list[float]
    tests: list[ClassTest]

    def rate(self, row: int) -> float:
        """ASR (0..1) of this class on the calibration part."""
        return self.rates[self.rows.index(row)]

    def test(self, row: int) -> ClassTest:
        """The test whether this class's ASR is unlike the others'."""
        return self.tests[self.rows.index(row)]

    def natural(self, row: int) -> float:
        """The best ASR (0..1) of the other classes that are not outliers themselves."""
        return max(
            rate
            for other, rate, test in zip(self.rows, self.rates, self.tests, strict=True)
            if other != row and not test.outlier
        )


@dataclass(frozen=True)
class Stronger(Generic[F]):
    """A class's trigger with a larger budget than it needs, and its siblings' ASR with as much."""

    found: F  # one row
    rate: float
    natural: float
    factor: float  # its budget in norms of the smallest trigger


@dataclass(frozen=True, kw_only=True)
class Siblings(Generic[F]):
    """The classes that are compared.

    Args:
        kit: searches and measures their triggers.
        rows: the classes, candidates included; at least five.
        most: how many of them may be outliers.
        alpha: level of the outlier test.
    """

    kit: Kit[F]
    rows: list[int]
    most: int
    alpha: float

    def within(self, budget: float, watch: Watch) -> Look[F]:
        """The ASR of each class within `budget` on calibration images, tested as angles."""
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
        """The strongest trigger of a class with a budget at which no sibling exceeds `QUIET`.

        The smallest trigger that reaches the goal works less often than the attacker's: a bound on
        its ASR would be below the true ASR. The budgets are those of `ladder`, in norms of the
        smallest trigger. They are ranked by failures on search and calibration images together
        (ties: the smaller budget), and the siblings are measured at one after another until they
        stay behind.

        Returns:
            None if they stay behind at no budget, or if no trigger is better than that of `look`.
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
        )  # siblings that are reached at one budget are reached at every larger one
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
        """The number of images of other classes that each trigger does not send to its class."""
        missed = torch.zeros(len(found.targets), dtype=torch.int64)
        for part in (self.kit.search, self.kit.calibration):
            hits, trials = self.kit.successes(found, part)
            missed += trials - hits
        return [int(count) for count in missed]


def _part(watch: Watch, start: float, end: float) -> Watch:
    return lambda done: watch(start + (end - start) * done)
