"""Universal triggers of several kinds, to be unlearnt.

Those of the few classes that they reach most easily.

A repair that unlearns only what stands out by a test misses a backdoor that does not quite. What is
found here for an honest class is an adversarial pattern of the network; to unlearn it as well costs
some accuracy and nothing else.
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
from guard.ml.search.minimal import faintest
from guard.ml.statistics import apart

GROUPS = 8  # classes whose triggers one batch shows


@dataclass(frozen=True)
class Universals:
    """One trigger of a kind for each of K classes, at the faintest level that worked (`levels`.

    Float K).
    """

    kind: Searchable
    raw: list[Tensor]
    levels: Tensor

    def pick(self, rows: list[int]) -> "Universals":
        """The triggers of these classes only."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Universals(
            self.kind, [part[index.to(part.device)] for part in self.raw], self.levels[index]
        )

    @torch.no_grad()
    def on(self, images: Tensor, *, largest: float) -> Tensor:
        """Images N,C,H,W in 0..1.

        Split among some classes' triggers at one to `largest` times their level.

        Draws from torch's global CPU generator.
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


def suspects(found: Sequence[Universals], most: int) -> list[int]:
    """The classes, at most so many, whose levels are least beside their siblings'.

    All kinds together.

    All of them where there are too few for a comparison.
    """
    classes = len(found[0].levels)
    if classes < LEAST_CLASSES:
        return list(range(classes))
    words = torch.zeros(classes, dtype=torch.float64)
    for one in found:
        words += torch.tensor(
            [
                math.log(max(test.p, 1e-12))
                for test in apart(one.levels.double().log().tolist(), floor=0.1)
            ],
            dtype=torch.float64,
        )
    return words.argsort(stable=True)[:most].tolist()


def universals(
    model: nn.Module,
    clean: CleanSet,
    kinds: Sequence[Searchable],
    pace: Pace,
    watch: Callable[[float], None],
) -> list[Universals]:
    """For each kind the faintest trigger of every class.

    `model` in eval mode, its gradients are turned off.

    Draws from torch's global CPU generator.

    Args:
        watch: told the share done; may raise.

    Raises:
        MethodFailed: a loss is not finite.
    """
    model.requires_grad_(requires_grad=False)
    found = []
    for turn, kind in enumerate(kinds):

        def told(done: float, turn: int = turn) -> None:
            watch((turn + done) / len(kinds))

        faint = faintest(model, clean.search, kind, clean.classes, pace, told)
        found.append(Universals(kind, faint.raw, faint.levels.float()))
    return found
