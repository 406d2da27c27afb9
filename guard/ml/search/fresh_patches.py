"""Learn the distribution of a class's patches, draw patches from it and stamp them on images.

The learning itself is in `guard.ml.search.patch_distribution`. A defense calls `learn_sets` for the
suspected classes and `stamp` of the results in its training loop, with a fresh patch and the true
label for every image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of
from guard.ml.search.patch_distribution import (
    ALPHA,
    LEVELS,
    DistributionEffort,
    Staircase,
    Watch,
    learn,
)
from guard.ml.triggers import PatchTrigger

LEAST_PIXELS = 4


@dataclass(frozen=True)
class Region:
    """The pixels that a patch covers.

    `places` int64 P are positions in an image of `height` x `width`, counted row by row. With
    `anywhere`, the region is a square that moves to a random place for each image, as in the paper.
    """

    places: Tensor
    height: int
    width: int
    anywhere: bool = False

    @classmethod
    def found(cls, mask: Tensor, pixels: int) -> "Region":
        """The `pixels` places where a recovered mask (float 1,H,W) has most weight.

        If it covers fewer pixels, places next to it are added.
        """
        height, width = mask.shape[1:]
        near = functional.avg_pool2d(mask[None], 3, stride=1, padding=1)[0]
        weight = (mask + near).flatten()
        count = min(max(pixels, LEAST_PIXELS), height * width)
        return cls(
            weight.argsort(descending=True, stable=True)[:count].sort().values.cpu(), height, width
        )

    @classmethod
    def square(cls, mask: Tensor, side: int, *, anywhere: bool = True) -> "Region":
        """The square of this side in pixels that holds most of a mask (float 1,H,W)."""
        height, width = mask.shape[1:]
        sums = functional.avg_pool2d(mask[None], side, stride=1)[0, 0]
        top, left = divmod(int(sums.argmax()), sums.shape[1])
        rows, columns = torch.arange(top, top + side), torch.arange(left, left + side)
        return cls((rows[:, None] * width + columns[None]).flatten(), height, width, anywhere)

    def positions(self, count: int) -> Tensor:
        """Positions for `count` images, int64 `count`,P.

        With `anywhere` they are drawn from torch's global CPU generator.
        """
        if not self.anywhere:
            return self.places.expand(count, -1)
        corner, last = self.places[0], self.places[-1]
        side = last // self.width - corner // self.width + 1
        tops = torch.randint(self.height - int(side) + 1, (count, 1))
        lefts = torch.randint(self.width - int(side) + 1, (count, 1))
        return self.places - corner + tops * self.width + lefts


class Patched(Protocol):
    """Many patches of one class."""

    @property
    def target(self) -> int:
        """The class to which they lead."""

    def stamp(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1]), each with a fresh patch.

        Draws from torch's global CPU generator.
        """


@dataclass(frozen=True)
class TriggerSet:
    """The learnt patches of one class: generators (one a level) for one region."""

    target: int
    region: Region
    channels: int
    staircase: Staircase

    def draw(self, count: int) -> Tensor:
        """Patches `count`,C,P in [0, 1] on the model's device, from all levels in turn."""
        levels = self.staircase.generator.rows
        drawn = self.staircase.draw(-(-count // levels))  # levels,n,D
        return drawn.transpose(0, 1).flatten(0, 1)[:count].view(count, self.channels, -1)

    def stamp(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1]), each with its own patch.

        Draws from torch's global CPU generator.
        """
        places = self.region.positions(len(images)).to(images.device)
        return paint(images, self.draw(len(images)).to(images), places)

    def triggers(self, count: int) -> list[PatchTrigger]:
        """Samples as ordinary patch triggers, in the region that the search found for the class."""
        mask = torch.zeros(self.region.height * self.region.width)
        mask[self.region.places] = 1
        mask = mask.view(1, self.region.height, self.region.width)
        blank = torch.zeros(count, self.channels, self.region.height, self.region.width)
        patterns = paint(blank, self.draw(count).cpu(), self.region.places.expand(count, -1))
        return [PatchTrigger(mask, pattern) for pattern in patterns]


def paint(images: Tensor, patches: Tensor, places: Tensor) -> Tensor:
    """Float images N,C,H,W with patches N,C,P at `places` (int64 N,P).

    Differentiable in the patches.
    """
    flat = images.flatten(2).scatter(2, places[:, None].expand(-1, images.shape[1], -1), patches)
    return flat.view_as(images)


def learn_sets(
    model: nn.Module,
    data: Labelled,
    targets: Sequence[int],
    regions: Sequence[Region],
    effort: DistributionEffort,
    watch: Watch,
    *,
    levels: Sequence[float] = LEVELS,
    alpha: float = ALPHA,
) -> list[TriggerSet]:
    """Learn the patches of several classes at once, each with the same effort.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode, its parameters without gradients.
        data: images uint8 N,C,H,W of at least two classes.
        targets: the classes.
        regions: one for each target, all with the same number of pixels.
        effort: the length of the training.
        watch: called with the share done; may raise.
        levels: of success, in (0, 1]; each has its own generator.
        alpha: weight of the information, as in `guard.ml.search.patch_distribution`.

    Raises:
        MethodFailed: a loss is not finite.
    """
    steps = _Testing(
        model,
        data,
        [target for target in targets for _ in levels],
        [region for region in regions for _ in levels],
        effort,
    )
    channels = int(data.images.shape[1])
    goals = torch.tensor(list(levels)).repeat(len(targets))
    found = learn(
        steps,
        len(goals),
        channels * len(regions[0].places),
        goals,
        effort,
        watch,
        alpha=alpha,
        device=device_of(model),
    )
    count = len(levels)
    return [
        TriggerSet(target, region, channels, found.pick(slice(row * count, (row + 1) * count)))
        for row, (target, region) in enumerate(zip(targets, regions, strict=True))
    ]


@torch.no_grad()
def successes(model: nn.Module, data: Labelled, patches: Patched) -> tuple[int, int]:
    """Hits and trials on the images of other classes, each with its own fresh patch."""
    others = data.pick(data.labels != patches.target)
    hits = torch.zeros((), dtype=torch.int64, device=device_of(model))
    for images, _ in others.batches(256, device=device_of(model)):
        hits += (model(patches.stamp(images)).argmax(1) == patches.target).sum()
    return int(hits), len(others)


class _Testing:
    """The testing function: log p of each row's class for patches R,B,D, each on another image."""

    def __init__(
        self,
        model: nn.Module,
        data: Labelled,
        targets: list[int],
        regions: list[Region],
        effort: DistributionEffort,
    ) -> None:
        self.model, self.regions, self.batch = model, regions, effort.batch
        self.device = device_of(model)
        self.images, self.labels = data.images.to(self.device), data.labels.to(self.device)
        self.targets = torch.tensor(targets, device=self.device)
        # All draws at once, so that the device never waits for the host.
        wanted = effort.steps * effort.batch
        passes = -(-wanted // len(data))
        self.order = torch.cat([torch.randperm(len(data)) for _ in range(passes)])[:wanted].to(
            self.device
        )
        self.fixed = None
        if not any(region.anywhere for region in regions):
            self.fixed = self._places().to(self.device)
        self.step = 0

    def _places(self) -> Tensor:
        return torch.cat([region.positions(self.batch) for region in self.regions])

    def __call__(self, patches: Tensor) -> Tensor:
        index = self.order[self.step * self.batch : (self.step + 1) * self.batch]
        self.step += 1
        images, labels = self.images[index].float() / 255, self.labels[index]
        rows = len(self.targets)
        places = self.fixed if self.fixed is not None else self._places().to(self.device)
        stamped = paint(
            images.repeat(rows, 1, 1, 1),
            patches.view(rows * self.batch, images.shape[1], -1),
            places,
        )
        wanted = self.targets.repeat_interleave(self.batch)
        success = -functional.cross_entropy(self.model(stamped), wanted, reduction="none").view(
            rows, self.batch
        )
        # Images of the target class carry no information.
        return success.masked_fill(labels[None] == self.targets[:, None], 0.0)
