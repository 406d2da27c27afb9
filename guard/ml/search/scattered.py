"""The smallest level at which one trigger sends every class somewhere else, and not all to one.

Beside it, on the same network with the same effort, the level that a trigger towards one class
needs: where a trigger that scatters the classes needs much less than that, somebody taught the
network to obey it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.ml.search.engine import TriggerSearch

SHRINK = (0.5, 0.9)  # factor of a level after a success, at the first and at the last window
GROW = 1.1  # factor after a failure
LEAST = 0.1  # of the family's own smallest level: no search goes below it
ENTROPY = 0.5  # weight of the mean entropy of single predictions

Watch = Callable[[float], None]


class Scattered:
    """The aim that images leave their class, surely, and that not all go to one.

    L = - mean log(1 - p_y) - H(mean p) + `ENTROPY` mean H(p), with p the probabilities of stamped
    images and y their classes. No mapping of classes is assumed.

    Args:
        labels: those of the search set, int64 N on the model's device.
        classes: K.
        rows: how many triggers are searched for.
    """

    def __init__(self, labels: Tensor, classes: int, rows: int) -> None:
        self.labels, self.classes, self._rows = labels, classes, rows
        # What the images of a window were taken for, T,K: kept on the device until it is over.
        self._seen = torch.zeros(rows, classes, device=labels.device)

    @property
    def rows(self) -> int:
        return self._rows

    def judge(self, logits: Tensor, rows: slice, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, successes and trials, float T, from logits T,N,K as in `engine.Objective`."""
        own = self.labels[index].expand(len(logits), -1)
        chances = logits.log_softmax(2)
        others = chances.scatter(2, own[..., None], -torch.inf).logsumexp(2)
        single = -(chances.exp() * chances).sum(2).mean(1)
        mean = chances.exp().mean(1)
        spread = -(mean * mean.clamp(min=1e-12).log()).sum(1)
        taken = logits.argmax(2)
        counts = torch.zeros(len(logits), self.classes, device=logits.device)
        self._seen[rows] += counts.scatter_add_(
            1, taken, torch.ones_like(counts[:, :1]).expand_as(taken)
        )
        good = (taken != own).float().sum(1)
        return ENTROPY * single - spread - others.mean(1), good, torch.full_like(good, len(index))

    def entropies(self) -> Tensor:
        """The entropy of where images went since the last call, as a share of log K; float T."""
        share = self._seen / self._seen.sum(1, keepdim=True).clamp(min=1)
        self._seen.zero_()
        entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
        return (entropy / math.log(self.classes)).cpu()


@dataclass(frozen=True)
class Levels:
    """For each row the smallest level that worked, float T on the CPU, and whether one did."""

    levels: Tensor
    reached: Tensor


def smallest_levels(
    search: TriggerSearch, works: Callable[[Tensor], Tensor], watch: Watch
) -> Levels:
    """Lower each row's level while it works and raise it slowly while it does not.

    Afterwards `search` holds each row's trigger at the smallest level that worked, or the last try.

    Args:
        search: changed in place; it starts at its own level, which no row exceeds.
        works: which rows work (bool T), from their successes in a window (float T on the CPU).
        watch: called with the share done, once a window; may raise.

    Raises:
        MethodFailed: a loss is not finite.
    """
    first, low = search.level.clone(), LEAST * search.kind.levels[0]
    best, reached = first.clone(), torch.zeros(len(first), dtype=torch.bool, device=search.device)
    kept = [part.detach().clone() for part in search.raw]
    windows = search.pace.windows
    for window in range(windows):
        share = window / max(1, windows - 1)
        good = works(search.window()).to(search.device)
        better = good & ((search.level < best) | ~reached)
        best, reached = torch.where(better, search.level, best), reached | good
        for mine, part in zip(kept, search.raw, strict=True):
            keep = better | ~reached  # a row without a success keeps its latest try
            mine.copy_(torch.where(keep.view(-1, *[1] * (part.dim() - 1)), part.detach(), mine))
        factor = torch.where(good, SHRINK[0] + (SHRINK[1] - SHRINK[0]) * share, GROW)
        search.level.copy_((search.level * factor).clamp(min=low).minimum(first))
        with torch.no_grad():
            search.kind.settle(search.raw, search.level)
        watch((window + 1) / windows)
    search.level.copy_(best)
    with torch.no_grad():
        for mine, part in zip(kept, search.raw, strict=True):
            part.copy_(mine)
        search.kind.settle(search.raw, search.level)
    return Levels(best.cpu(), reached.cpu())
