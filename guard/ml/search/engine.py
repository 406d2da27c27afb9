"""Optimise the triggers of one family for all target classes (or several tries) at once.

Each row has its own level. `descend` moves all rows together, to the level at which a control
begins to fail; `guard.ml.search.minimal` searches for the smallest level that still works for each
class.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of
from guard.ml.precision import searching
from guard.ml.search.families import Searchable, Shape
from guard.ml.search.patches import PASS_IMAGES
from guard.ml.triggers import Trigger

BETAS = (0.5, 0.9)  # Adam's, as in Neural Cleanse's code
Watch = Callable[[float], None]


class Objective(Protocol):
    """The aim of each row of a search; rows are triggers, all applied to the same images."""

    @property
    def rows(self) -> int: ...

    def judge(self, logits: Tensor, rows: slice, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, number of successes and number of trials of each row, float T.

        Args:
            logits: float T,N,K.
            rows: which of all rows these T are.
            index: positions of the N images in the search set, int64.
        """


class Targets:
    """The aim that each row sends all images of other classes to its own target class.

    `targets` are the rows' classes, int64 T; `labels` those of the search set, int64.
    """

    def __init__(self, targets: Tensor, labels: Tensor) -> None:
        self.targets, self.labels = targets, labels

    @property
    def rows(self) -> int:
        return len(self.targets)

    def judge(self, logits: Tensor, rows: slice, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, successes and trials, float T, from logits T,N,K as in `Objective`."""
        targets = self.targets[rows]
        weight = (
            self.labels[index][None] != targets[:, None]
        ).float()  # images of the target class carry no information
        wanted = targets.repeat_interleave(len(index))
        losses = (
            functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none").view_as(weight)
            * weight
        )
        good = ((logits.argmax(2) == targets[:, None]) * weight).sum(1)
        return losses.sum(1) / weight.sum(1).clamp(min=1), good, weight.sum(1)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The length of a search: `batch` images a step, `window` steps a window, `windows` in all.

    The host looks at the state once a window. `least` windows are spent on the level that is kept,
    even if fewer would be left.
    """

    batch: int = 12
    window: int = 8
    windows: int = 12
    least: int = 3


class TriggerSearch:
    """Triggers of one family under optimisation.

    Draws from torch's global CPU generator. Batches take the classes in turn, so that none is rare.

    Args:
        model: in eval mode, its parameters without gradients.
        kind: the family.
        data: the images to search on.
        objective: the aim of each row.
        pace: the length of the search.
        level: one for all rows, or float T.
        raw: raw parameters to start from, copied; None for fresh triggers.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: Searchable,
        data: Labelled,
        objective: Objective,
        pace: Pace,
        level: float | Tensor,
        raw: Sequence[Tensor] | None = None,
    ) -> None:
        self.model, self.kind, self.objective, self.pace = model, kind, objective, pace
        self.device = device_of(model)
        self.level = (
            torch.as_tensor(level, dtype=torch.float32)
            .to(self.device)
            .expand(objective.rows)
            .clone()
        )
        self.images = data.images.to(self.device)
        start = kind.start(objective.rows, _shape_of(data.images)) if raw is None else raw
        self.raw = [part.detach().to(self.device, copy=True).requires_grad_() for part in start]
        kind.settle(self.raw, self.level)
        self.optimiser = torch.optim.Adam(self.raw, lr=kind.rate, betas=BETAS)
        self.steps = 0
        wanted = (pace.windows + pace.least * len(kind.levels)) * pace.window * pace.batch
        self.order = _in_turn(data.labels, wanted).to(self.device)

    def window(self, rate: float = 1.0) -> Tensor:
        """Optimise for one window at `rate` times the family's own learning rate.

        Returns:
            The share (0..1) of successes of each row in the window, float T on the CPU.

        Raises:
            MethodFailed: a loss is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.kind.rate * rate
        hits = torch.zeros(self.objective.rows, device=self.device)
        trials, total = torch.zeros_like(hits), torch.zeros_like(hits)
        for _ in range(self.pace.window):
            first = self.steps * self.pace.batch % len(self.order)
            losses, good, valid = self._step(self.order[first : first + self.pace.batch])
            hits, trials, total = hits + good, trials + valid, total + losses
            self.steps += 1
        if not bool(torch.isfinite(total).all()):
            raise MethodFailed(
                "The model gives logits that are not finite; no trigger can be searched for.",
                code="non_finite",
            )
        return (hits / trials.clamp(min=1)).cpu()

    @torch.no_grad()
    def start_from_random(self) -> None:
        """Start each row at the random start with the least loss for it on the first images.

        This is for families of few parameters, where an optimisation may start in the wrong valley
        and never leave it. All rows must be at one level.
        """
        raw = [
            part.to(self.device)
            for part in self.kind.start(self.kind.starts, _shape_of(self.images))
        ]
        index = self.order[: PASS_IMAGES.get(self.device.type, 256)]
        images, everyone = self.images[index].float() / 255, slice(0, self.objective.rows)
        losses = []
        for row in range(self.kind.starts):
            own = [part[row : row + 1] for part in raw]
            logits = self.model(self.kind.stamp(own, images, self.level[:1])[0])
            losses.append(
                self.objective.judge(logits.expand(self.objective.rows, -1, -1), everyone, index)[0]
            )
        best = torch.stack(losses).argmin(0)
        for mine, drawn in zip(self.raw, raw, strict=True):
            mine.copy_(drawn[best])

    def _step(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = self.images[index].float() / 255
        rows = max(1, PASS_IMAGES.get(self.device.type, 256) // len(index))
        self.optimiser.zero_grad(set_to_none=True)
        parts = []
        for first in range(0, self.objective.rows, rows):
            part = slice(first, min(first + rows, self.objective.rows))
            with torch.enable_grad():
                stamped = self.kind.stamp([raw[part] for raw in self.raw], images, self.level[part])
                with searching(self.device):
                    logits = (
                        self.model(stamped.flatten(0, 1)).float().unflatten(0, stamped.shape[:2])
                    )
                losses, good, valid = self.objective.judge(logits, part, index)
                losses.sum().backward()
            parts.append((losses.detach(), good, valid))
        self.optimiser.step()
        self.kind.settle(self.raw, self.level)
        losses, good, valid = (torch.cat(part) for part in zip(*parts, strict=True))
        return losses, good, valid

    def move_to(self, level: float) -> None:
        """Continue with all rows at another level."""
        self.level.fill_(level)
        self.kind.settle(self.raw, self.level)

    def trigger(self, row: int) -> Trigger:
        """The trigger of one row at its present level, on the CPU."""
        return self.kind.trigger(self.raw, row, float(self.level[row]), _shape_of(self.images))

    def votes(self, data: Labelled, classes: int) -> Tensor:
        """Confusion counts under each row's trigger, int64 T,K,K on the CPU.

        Entry t,i,j is the number of images of class i that are classified as j.
        """
        return self._count(self.raw, self.level, data, classes)

    def controls(self, data: Labelled, classes: int, rows: int, level: float) -> Tensor:
        """As `votes`, int64 `rows`,K,K, for random triggers at one level."""
        raw = [part.to(self.device) for part in self.kind.control(rows, _shape_of(data.images))]
        levels = torch.full((rows,), level, device=self.device)
        self.kind.settle(raw, levels)
        return self._count(raw, levels, data, classes)

    @torch.no_grad()
    def _count(self, raw: Sequence[Tensor], level: Tensor, data: Labelled, classes: int) -> Tensor:
        most, rows = PASS_IMAGES.get(self.device.type, 256), len(raw[0])
        counts = torch.zeros(rows, classes * classes, dtype=torch.int64, device=self.device)
        for images, labels in data.batches(most, device=self.device):
            for row in range(rows):
                stamped = self.kind.stamp(
                    [part[row : row + 1] for part in raw], images, level[row : row + 1]
                )[0]
                cells = labels * classes + self.model(stamped).argmax(1)
                counts[row] += torch.bincount(cells, minlength=classes * classes)
        return counts.view(-1, classes, classes).cpu()


def descend(
    search: TriggerSearch,
    too_strong: Callable[[Tensor], bool],
    hopeless: Callable[[Tensor], bool],
    watch: Watch,
) -> bool:
    """Go down the family's levels to the largest one that is not `too_strong`, and stay there.

    A level is left as soon as a window shows that it is too strong. The next level starts from what
    was found there: a strong trigger that works is a better start for a weak one than noise. The
    learning rate falls in the last windows. The search ends early if half of all windows were spent
    on one level and it is `hopeless`.

    Args:
        search: changed in place.
        too_strong, hopeless: judge the rates of all rows in one window (float T on the CPU).
        watch: called with the share of time spent, once a window; may raise.

    Returns:
        Whether there is such a level; if not, the search ends at the smallest one.
    """
    pace, levels = search.pace, search.kind.levels
    position, spent, here, reached = len(levels) - 1, 0, 0, 0.0
    while spent < pace.windows or here < pace.least:
        left = max(pace.windows - spent, pace.least - here)
        rates = search.window(min(1.0, left / pace.least))
        spent, here = spent + 1, here + 1
        # A level that is left late asks for windows that nobody counted on.
        reached = max(reached, min(1.0, spent / (spent + left - 1)))
        watch(reached)
        if too_strong(rates):
            if position > 0:
                position, here = position - 1, 0
                search.move_to(levels[position])
            elif here >= pace.least:
                return False
        elif here >= pace.windows // 2 and hopeless(rates):
            break
    return True


def successes(votes: Tensor, targets: Sequence[int]) -> tuple[list[int], list[int]]:
    """Hits and trials of each row's target class, from the counts of `TriggerSearch.votes`.

    `votes` is int64 T,K,K and `targets` holds T classes; both results hold T
    counts. Images of the target class itself do not count.
    """
    hits, trials = [], []
    for row, target in enumerate(targets):
        others = [label for label in range(votes.shape[1]) if label != target]
        hits.append(int(votes[row, others, target].sum()))
        trials.append(int(votes[row, others].sum()))
    return hits, trials


def _shape_of(images: Tensor) -> Shape:
    channels, height, width = (int(side) for side in images.shape[1:])
    return channels, height, width


def _in_turn(labels: Tensor, wanted: int) -> Tensor:
    """`wanted` positions, the classes in turn, each class's images shuffled on every pass."""
    classes = labels.unique().tolist()
    each = math.ceil(wanted / len(classes))
    streams = []
    for label in classes:
        own = torch.nonzero(labels == label).flatten()
        passes = [own[torch.randperm(len(own))] for _ in range(math.ceil(each / len(own)))]
        streams.append(torch.cat(passes)[:each])
    return torch.stack(streams, dim=1).flatten()[:wanted]
