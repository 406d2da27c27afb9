"""Images beside clean ones of their classes, in a norm in which clean images vary evenly.

Of large images or large sets a part is in memory at once. Whatever is cut is cut within each class:
a class that lost all its images would have no mean, and everything beside it would seem changed.
"""

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled
from guard.ml.sifting import moments
from guard.ml.triggers import Trigger

RIDGE = 0.05  # of the covariance is isotropic: a thousand images do not fill all directions
MOST_COVERED = 0.9  # of an image, by something constant
LEAST_OF_SOURCE = 4  # images of a class, whose variety says something
SIZES = torch.logspace(-6, -1, 60)  # squared sizes of a pattern's pixels that are tried
MOST_IMAGES = 2000  # more make the covariance no better


class Clean:
    """Clean images with all that suspects are set beside: made once, for all labels."""

    def __init__(self, images: Labelled) -> None:
        self.images = images
        self.space, self.spread = Space(images, _classes(images)), Spread(images)

    def knows(self, rows: Tensor) -> Tensor:
        """Whether each class of `rows`, int64 N, has a mean, as bool N."""
        inside = (rows >= 0) & (rows < len(self.space.counts))
        return inside & (self.space.counts[rows.clamp(0, len(self.space.counts) - 1)] > 0)


class Space:
    """Clean images: the means of their classes, and a norm in which their variety is even.

    Only directions that images fill are kept; the covariance of all others is isotropic.
    """

    def __init__(self, clean: Labelled, classes: int) -> None:
        some = cut(clean, most(clean))
        self.shape = some.images.shape[1:]
        pixels = _flat(some)
        self.counts = torch.bincount(some.labels, minlength=classes).float()
        self.means = _means(pixels, some.labels, self.counts)
        rest = pixels - self.means[some.labels]
        count = max(1, len(some) - int((self.counts > 0).sum()))
        self.floor = RIDGE * float(rest.square().sum()) / count / rest.shape[1] + 1e-8
        values, vectors = torch.linalg.eigh(rest @ rest.T / count)
        kept = values > 1e-6 * values.max().clamp(min=1e-12)
        values, vectors = values[kept], vectors[:, kept]
        self.basis = rest.T @ vectors / (count * values).sqrt()  # D,r, orthonormal
        self.spread = (1 - RIDGE) * values + self.floor

    def size(self, rows: Tensor) -> Tensor:
        """Whitened squared norms, float N, of rows float N,D."""
        inside = (rows @ self.basis).square()
        saved = (inside * (1 - self.floor / self.spread)).sum(1)
        return (rows.square().sum(1) - saved) / self.floor

    def shrunk(self, shift: Tensor, variance: float) -> Tensor:
        """The pattern float D behind a shift float D of means, which the variety of images blurs.

        Its pixels are taken for independent, of the size that makes the shift most likely: then
        directions in which images vary by themselves count least. Each direction keeps the size
        that the pattern is expected to have there; the mean that is expected would be smaller, and
        a trigger that is weaker than the true one reads low.
        """
        inside = shift @ self.basis
        beyond = shift - self.basis @ inside
        noise, rest = self.spread * variance, self.floor * variance
        others = len(shift) - len(inside)
        likely = [
            -((inside**2 / (size + noise)).sum() + (size + noise).log().sum())
            - (beyond.square().sum() / (size + rest) + others * (size + rest).log())
            for size in SIZES
        ]
        size = SIZES[int(torch.stack(likely).argmax())]
        kept = self.basis @ ((size / (size + noise)).sqrt() * inside)
        return kept + (size / (size + rest)) ** 0.5 * beyond


class Group:
    """Accused images by the class that they come from: their means beside those of clean ones."""

    def __init__(self, space: Space, images: Labelled, sources: Tensor) -> None:
        self.space, self.pixels, self.sources = space, _flat(images), sources
        count = torch.bincount(sources, minlength=len(space.counts)).float()
        self.rows = torch.nonzero(count).flatten()
        self.count = count[self.rows]
        self.means = _means(self.pixels, sources, count)[self.rows]
        self.clean = space.means[self.rows]
        self.sure = 1 / (1 / self.count + 1 / space.counts[self.rows])

    def unexplained(self, trigger: Trigger) -> float:
        """How far the means are from what a trigger makes of the clean ones, in its noise."""
        return float((self.sure * self.space.size(self.means - self.changed(trigger))).sum())

    def changed(self, trigger: Trigger) -> Tensor:
        """What a trigger makes of the clean means, float N,D of N sources."""
        return trigger.apply(self.clean.view(-1, *self.space.shape)).flatten(1)

    def left(self, trigger: Trigger) -> Tensor:
        """What a trigger leaves unexplained of each image, whitened: float N."""
        made = torch.zeros(len(self.space.counts), self.clean.shape[1])
        made[self.rows] = self.changed(trigger)
        return self.space.size(self.pixels - made[self.sources])

    def shift(self) -> tuple[Tensor, Tensor]:
        """The shift float D of all means together, shrunk, and the clean mean float D beside it."""
        share = self.count / self.count.sum()
        clean = share @ self.clean
        variance = 1 / self.count.sum() + (share**2 / self.space.counts[self.rows]).sum()
        return self.space.shrunk(share @ self.means - clean, float(variance)), clean


class Spread:
    """How much clean images vary within their classes, of images that did not set the norm."""

    def __init__(self, clean: Labelled) -> None:
        order = torch.argsort(clean.labels, stable=True)  # both halves get their share of each
        self.space = Space(clean.pick(order[::2]), _classes(clean))
        others = cut(clean.pick(order[1::2]), most(clean))
        others = others.pick(self.space.counts[others.labels] > 0)
        self.labels = others.labels
        self.sizes = self.space.size(_flat(others) - self.space.means[others.labels])

    def covered(self, images: Labelled, sources: Tensor) -> float:
        """The share 0..1 of each image that something constant covers, by how little they vary.

        0 where they vary as clean images of their sources do, or more; at most `MOST_COVERED`.
        """
        group = Group(self.space, images, sources)
        place = torch.zeros(len(self.space.counts), dtype=torch.int64)
        place[group.rows] = torch.arange(len(group.rows))
        own = place[sources]
        count = group.count[own]
        seen = count >= LEAST_OF_SOURCE
        beside = torch.isin(self.labels, sources[seen])
        if not bool(seen.any()) or not bool(beside.any()):
            return 0.0
        left = self.space.size(group.pixels - group.means[own]) * count / (count - 1).clamp(min=1)
        ratio = float(left[seen].median() / self.sizes[beside].median().clamp(min=1e-8))
        return min(MOST_COVERED, max(0.0, 1 - ratio**0.5))


def _means(pixels: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    summed = torch.zeros(len(counts), pixels.shape[1]).index_add_(0, rows, pixels)
    return summed / counts.clamp(min=1)[:, None]


def _flat(data: Labelled) -> Tensor:
    return data.images.float().div_(255).flatten(1)


def most(images: Labelled) -> int:
    """How many images of this size are in memory at once, as floats."""
    fit = moments.MOST_VALUES // images.images[0].numel()
    return max(moments.LEAST_IMAGES, min(MOST_IMAGES, fit))


def cut(data: Labelled, count: int) -> Labelled:
    """At most `count` images, as many of each class as of any other that has so many."""
    if len(data) <= count:
        return data
    order = torch.argsort(data.labels, stable=True)
    counts = torch.bincount(data.labels)
    place = torch.arange(len(data)) - (counts.cumsum(0) - counts)[data.labels[order]]
    turns = torch.argsort(place, stable=True)[:count]  # one of each class, another of each, ...
    return data.pick(order[turns].sort().values)


def _classes(data: Labelled) -> int:
    return int(data.labels.max()) + 1
