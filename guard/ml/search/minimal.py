"""The minimal trigger of a family for each class, with all classes in one optimisation.

As in `guard.ml.search.patches` and for the same reasons, the level is not a penalty but a budget of
each class, which shrinks while the goal is reached and grows slowly while it is not. The minimal
level distinguishes classes; success rates at one common level do not, since there either all
classes are reached or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from guard.ml.cleanset import Labelled
from guard.ml.search.engine import Pace, Targets, TriggerSearch, Watch, successes
from guard.ml.search.families import Searchable, Shape
from guard.ml.triggers import Trigger

SHRINK = (0.5, 0.9)  # factor of the level after a success, at the first and at the last window
GROW = 1.1  # factor after a failure
CENSORED = 1.5  # a class that was never reached counts with this many times the strongest level
# A family with which no class has got this far halfway will not bring most of them over the goal
HOPELESS = 0.3
COOLING = 3  # windows at the end of a search at a fixed level in which the learning rate falls


@dataclass(frozen=True, kw_only=True)
class MinimalTriggers:
    """One trigger for each of K target classes, its raw parameters on the model's device.

    `targets` int64 K; `norms` float64 K: the smallest level that reached the goal, `CENSORED` times
    the strongest one if none did (`reached` False). Both are on the CPU.
    """

    kind: Searchable
    targets: Tensor
    raw: list[Tensor]
    norms: Tensor
    reached: Tensor
    shape: Shape

    @property
    def levels(self) -> Tensor:
        """The levels of the triggers, float64 K: the norms, but at most the strongest level."""
        return self.norms.clamp(max=self.kind.levels[-1])

    def pick(self, rows: list[int]) -> "MinimalTriggers":
        """These rows, in this order; a row may come more than once."""
        index = torch.tensor(rows, dtype=torch.int64)
        return replace(
            self,
            targets=self.targets[index],
            norms=self.norms[index],
            reached=self.reached[index],
            raw=[part[index.to(part.device)] for part in self.raw],
        )

    def trigger(self, row: int) -> Trigger:
        """The trigger of the class in this row, on the CPU."""
        return self.kind.trigger(self.raw, row, float(self.levels[row]), self.shape)


def minimal_triggers(
    model: nn.Module,
    data: Labelled,
    kind: Searchable,
    classes: int,
    pace: Pace,
    watch: Watch,
    *,
    goal: float = 0.8,
) -> MinimalTriggers:
    """Search for the minimal trigger of each class, with equal effort for each.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode, its parameters without gradients.
        data: the images to search on.
        kind: the trigger family.
        classes: K.
        pace: the length of the search.
        watch: called with the share done, once a window; may raise.
        goal: the share (0..1) of images of other classes that must go to the class.

    Raises:
        MethodFailed: a loss is not finite.
    """
    targets = torch.arange(classes)
    most = kind.levels[-1]
    search = _search(model, data, kind, targets, pace, most)
    if kind.starts:
        search.start_from_random()
    best = torch.full((classes,), CENSORED * most)
    kept = [part.detach().clone() for part in search.raw]
    reached = torch.zeros(classes, dtype=torch.bool)
    for turn in range(pace.windows):
        rates = search.window()
        level, share = search.level.cpu(), (turn + 1) / pace.windows
        good = rates >= goal
        better = (good & (level < best)) | ~(
            reached | good
        )  # a class without a success keeps its latest try
        best, reached = torch.where(good, torch.minimum(best, level), best), reached | good
        for old, new in zip(kept, search.raw, strict=True):
            rows = better.nonzero().flatten().to(old.device)
            old[rows] = new.detach()[rows]
        factor = torch.where(good, SHRINK[0] + (SHRINK[1] - SHRINK[0]) * share, GROW)
        search.level = (level * factor).clamp(max=most).to(search.level)
        watch(share)
        if share >= 0.5 and not reached.any() and float(rates.max()) < HOPELESS:
            break
    channels, height, width = (int(side) for side in data.images.shape[1:])
    return MinimalTriggers(
        kind=kind,
        targets=targets,
        raw=kept,
        norms=best.double(),
        reached=reached,
        shape=(channels, height, width),
    )


@dataclass(frozen=True, kw_only=True)
class MinimalKit:
    """The interface that `guard.ml.search.natural_asr` needs, for these families.

    Args:
        smallest: the triggers of all classes, from which searches at a given level start.
        pace: the length of such a search.
    """

    model: nn.Module
    search: Labelled
    calibration: Labelled
    smallest: MinimalTriggers
    classes: int
    pace: Pace

    @property
    def largest(self) -> float:
        """The strongest level of the family."""
        return self.smallest.kind.levels[-1]

    def within(
        self, start: MinimalTriggers, budget: float | Tensor, watch: Watch
    ) -> MinimalTriggers:
        """For each row the trigger at level `budget` that sends most images to its class.

        `budget` is one level for all rows, or float T.
        """
        search = _search(
            self.model, self.search, start.kind, start.targets, self.pace, budget, start.raw
        )
        for turn in range(self.pace.windows):
            search.window(min(1.0, (self.pace.windows - turn) / COOLING))
            watch((turn + 1) / self.pace.windows)
        return replace(
            start, raw=[part.detach() for part in search.raw], norms=search.level.double().cpu()
        )

    def successes(self, found: MinimalTriggers, data: Labelled) -> tuple[Tensor, Tensor]:
        """Hits and trials of each row on the images of other classes, int64 T, T on the CPU."""
        search = _search(
            self.model, data, found.kind, found.targets, self.pace, found.levels, found.raw
        )
        hits, trials = successes(search.votes(data, self.classes), found.targets.tolist())
        return torch.tensor(hits), torch.tensor(trials)

    def chance(self, found: MinimalTriggers, row: int, controls: int) -> list[float]:
        """ASR (0..1) of random triggers at this row's level for its class, the best first."""
        search = _search(
            self.model,
            self.calibration,
            found.kind,
            found.targets,
            self.pace,
            found.levels,
            found.raw,
        )
        votes = search.controls(self.calibration, self.classes, controls, float(found.levels[row]))
        hits, trials = successes(votes, [int(found.targets[row])] * controls)
        return sorted((hit / trial for hit, trial in zip(hits, trials, strict=True)), reverse=True)


def _search(
    model: nn.Module,
    data: Labelled,
    kind: Searchable,
    targets: Tensor,
    pace: Pace,
    level: float | Tensor,
    raw: Sequence[Tensor] | None = None,
) -> TriggerSearch:
    device = next(model.parameters()).device
    goal = Targets(targets.to(device), data.labels.to(device))
    return TriggerSearch(model, kind, data, goal, pace, level, raw)
