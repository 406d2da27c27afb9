"""What do the other classes reach with as many pixels? (natural ASR), and how strong can a class's patch become?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from guard.ml.cleanset import Labelled
from guard.ml.inversion import Effort, Patches, Watch, patches_within, successes
from guard.ml.statistics import ClassTest, angles, low_outliers

LEAST_ANGLE_SPREAD = 0.1  # the error of the angle of a share of 25 pictures; siblings all at 0 % have no spread
QUIET = 0.5  # a stronger patch counts only where no sibling reaches more than this share at its budget
LADDER = (1.25, 1.5, 2.0, 3.0)  # budgets to try, in norms of the smallest patch


@dataclass(frozen=True)
class Look:
    """What the classes in `rows` reach within `budget` pixels; everything else is in the order of `rows`."""

    budget: float
    rows: list[int]
    patches: Patches
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
        return max(rate for other, rate, test in zip(self.rows, self.rates, self.tests, strict=True)
                   if other != row and not test.outlier)


@dataclass(frozen=True)
class Stronger:
    """A class's patch with more pixels than it needs, and what its siblings reach with as many."""

    patches: Patches  # one row
    rate: float
    natural: float
    factor: float  # its budget in norms of the smallest patch


@dataclass(frozen=True, kw_only=True)
class Siblings:
    """Everyone who can be asked.

    Args:
        patches: the smallest patches of all K classes, where searches start.
        rows: the classes that are asked, candidates included; at least five.
        effort: of one look.
        most: how many of them may be outliers.
        alpha: level of the outlier test.
    """

    model: nn.Module
    search: Labelled
    calibration: Labelled
    patches: Patches
    rows: list[int]
    effort: Effort
    most: int
    alpha: float

    def within(self, budget: float, watch: Watch) -> Look:
        """What each reaches within `budget` pixels, measured on the calibration part and tested as angles."""
        start = self.patches.pick(self.rows)
        found = patches_within(self.model, self.search, start, budget, self.effort, watch)
        hits, trials = successes(self.model, self.calibration, found)
        shares = angles(hits.tolist(), trials.tolist())
        tests = low_outliers(shares, alpha=self.alpha, most=self.most, low_side=False, floor=LEAST_ANGLE_SPREAD)
        return Look(budget, self.rows, found, (hits.double() / trials).tolist(), tests)

    def stronger(self, row: int, look: Look, watch: Watch, ladder: Sequence[float] = LADDER) -> Stronger | None:
        """The strongest patch of a class on a ladder of budgets at which no sibling gets beyond `QUIET`.

        The smallest patch that reaches 95 % works less often than what the attacker stamps: a bound on its ASR would
        lie under the true one. Rungs are ranked by failures on search and calibration pictures together (ties: the
        smaller), and siblings are asked rung after rung until one is quiet; None where none is, or none is better
        than what `look` has.
        """
        norm = float(self.patches.norms[row])
        ladder = [factor for factor in ladder if factor * norm < float(self.patches.masks[row].numel())]
        if not ladder:
            return None
        own = look.patches.pick([look.rows.index(row)])
        start = own.pick([0] * len(ladder))
        found = patches_within(self.model, self.search, start, norm * torch.tensor(ladder), self.effort,
                               _part(watch, 0.0, 0.25))
        best = self._failures(own)[0]
        failures = self._failures(found)
        done, loud = 0.25, len(ladder)  # what wakes the siblings at one budget does so at every larger one
        for rung in sorted(range(len(ladder)), key=lambda rung: failures[rung]):
            if failures[rung] >= best:
                return None
            if rung >= loud:
                continue
            start_at, done = done, (1 + done) / 2
            seen = self.within(norm * ladder[rung], _part(watch, start_at, done))
            if seen.natural(row) <= max(QUIET, look.natural(row)):
                chosen = found.pick([rung])
                hits, trials = successes(self.model, self.calibration, chosen)
                return Stronger(chosen, float(hits / trials), seen.natural(row), ladder[rung])
            loud = rung
        return None

    def _failures(self, patches: Patches) -> list[int]:
        """Pictures of other classes in both parts that each patch does not send to its class."""
        missed = torch.zeros(len(patches.targets), dtype=torch.int64)
        for part in (self.search, self.calibration):
            hits, trials = successes(self.model, part, patches)
            missed += trials - hits
        return [int(count) for count in missed]


def _part(watch: Watch, start: float, end: float) -> Watch:
    return lambda done: watch(start + (end - start) * done)
