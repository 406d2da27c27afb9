"""Universal perturbations for the few classes that are reached most easily, to be unlearnt.

A repair that unlearns only what stands out by a test misses a backdoor that nearly stands out. What
is found here for an honest class is an adversarial pattern of the network; unlearning it as well
costs some accuracy and does no other harm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.core.pvalues import LEAST_CLASSES
from guard.ml.cleanset import CleanSet
from guard.ml.search.engine import Pace
from guard.ml.search.families import Searchable
from guard.ml.search.minimal import minimal_triggers
from guard.ml.statistics import apart

GROUPS = 8  # classes whose triggers appear in one batch


@dataclass(frozen=True)
class UniversalTriggers:
    """One trigger of a kind for each of K classes.

    `levels` (float K) are the smallest levels that worked.
    """

    kind: Searchable
    raw: list[Tensor]
    levels: Tensor

    def pick(self, rows: list[int]) -> "UniversalTriggers":
        """The triggers of these classes only."""
        index = torch.tensor(rows, dtype=torch.int64)
        return UniversalTriggers(
            self.kind, [part[index.to(part.device)] for part in self.raw], self.levels[index]
        )

    @torch.no_grad()
    def on(self, images: Tensor, *, largest: float) -> Tensor:
        """The images with triggers of some classes, at one to `largest` times their level.

        Draws from torch's global CPU generator.

        Args:
            images: float N,C,H,W in [0, 1]; split among the classes.
            largest: the largest factor.

        Returns:
            Float N,C,H,W in [0, 1].
        """
        rows = torch.randperm(len(self.levels))[:GROUPS].tolist()
        stamped = []
        for row, part in zip(rows, images.chunk(len(rows)), strict=False):
            factor = largest ** float(torch.rand(()))
            level = (self.levels[row : row + 1] * factor).clamp(max=self.kind.levels[-1])
            stamped.append(
                self.kind.stamp([raw[row : row + 1] for raw in self.raw], part, level.to(part))[0]
            )
        return torch.cat(stamped)


def suspects(found: Sequence[UniversalTriggers], most: int) -> list[int]:
    """At most `most` classes with the smallest levels compared with their siblings, over all kinds.

    If there are too few classes for a comparison, all of them.
    """
    classes = len(found[0].levels)
    if classes < LEAST_CLASSES:
        return list(range(classes))
    log_p_sums = torch.zeros(classes, dtype=torch.float64)
    for one in found:
        log_p_sums += torch.tensor(
            [
                math.log(max(test.p, 1e-12))
                for test in apart(one.levels.double().log().tolist(), floor=0.1)
            ],
            dtype=torch.float64,
        )
    return log_p_sums.argsort(stable=True)[:most].tolist()


def universal_triggers(
    model: nn.Module,
    clean: CleanSet,
    kinds: Sequence[Searchable],
    pace: Pace,
    watch: Callable[[float], None],
) -> list[UniversalTriggers]:
    """Search for the minimal trigger of every class, for each kind.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode; the gradients of its parameters are turned off.
        clean: its search part is used.
        kinds: the trigger families.
        pace: the length of each search.
        watch: called with the share done; may raise.

    Raises:
        MethodFailed: a loss is not finite.
    """
    model.requires_grad_(requires_grad=False)
    found = []
    for turn, kind in enumerate(kinds):

        def watch_kind(done: float, turn: int = turn) -> None:
            watch((turn + done) / len(kinds))

        minimal = minimal_triggers(model, clean.search, kind, clean.classes, pace, watch_kind)
        found.append(UniversalTriggers(kind, minimal.raw, minimal.levels.float()))
    return found
