"""The trigger that accused images carry, whatever its form, as a change of any image.

Patches, blends, added patterns and warps are linear in the image. So the mean of the accused
images that come from a class is that very change of the class's clean mean, up to the noise of a
mean; and that noise is known: it is the spread of clean images within their classes. Measured by it
(whitened), a trigger that is far smaller than the images' own variety stands out.

Steps:
    1. means of the classes and the spread within them, from clean images
    2. one trigger of each form that explains the means of the accused images
    3. each form once more from half of the images: what it explains of the other half chooses one
    4. where it is open whether labels were changed: the sources under which images are nearer to
       what they should look like
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled
from guard.ml.sifting import moments
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, Trigger, WarpTrigger
from guard.ml.triggers.warp import warped

RIDGE = 0.05  # of the covariance is isotropic: a thousand images do not fill all directions
LEAST_BLEND, MOST_BLEND = 0.02, 0.9
SURE_BLEND = 0.08  # images vary so much less: on development sets blends did by .16 and more
LEAST_OF_SOURCE = 4  # images of a class, whose variety says something
POINTS, STEPS, RATE = 4, 150, 0.1  # of the flow that is fitted, in pixels
SIZES = torch.logspace(-6, -1, 60)  # squared sizes of a pattern's pixels that are tried
STRONGER = 2.0  # a stamp at test time; SIG and Adaptive-Blend raise theirs by as much and more
WON = 0.5  # share of images that must be nearer to what sources of other labels predict


@dataclass(frozen=True)
class Carried:
    """A trigger as accused images carry it, and the same twice as strong.

    Nothing in a training set says how strongly an attacker stamps later: the truth lies between.
    `relabelled`: the images come from other classes than their label.
    """

    trigger: Trigger
    stronger: Trigger
    relabelled: bool


def carried(
    suspects: Labelled, sources: Tensor, clean: Labelled, *, mapped: bool = False
) -> Carried | None:
    """The trigger that accused images of one label carry, or those that a label map moved.

    Args:
        suspects: accused images; some may be clean.
        sources: int64 N, the class that each seems to come from, -1 where that is not known.
        clean: clean images of all classes.
        mapped: they have several labels, and it is known that none is its own.

    Returns:
        None where fewer than `moments.LEAST_IMAGES` can be set beside clean ones.
    """
    taken = suspects.pick(torch.arange(min(len(suspects), _most(clean))))
    space, spread = _Space(clean, int(clean.labels.max()) + 1), _Spread(clean)
    sources = sources[: len(taken)]
    own, known = taken.labels, sources >= 0
    moved = known & (sources != own)
    strange = _explained(space, spread, taken.pick(moved), sources[moved], clean)
    if mapped:
        return _made(strange, relabelled=True)
    if strange is None or 2 * int(moved.sum()) < int(known.sum()):
        return _made(_explained(space, spread, taken, own, clean), relabelled=False)
    still = _explained(space, spread, taken.pick(moved), own[moved], clean)
    nearer = still is None or float((strange.left < still.left).float().mean()) >= WON
    if nearer:
        return _made(strange, relabelled=True)
    return _made(_explained(space, spread, taken, own, clean), relabelled=False)


@dataclass(frozen=True)
class _Explained:
    """A trigger, and what it leaves unexplained of each image, whitened: float N."""

    trigger: Trigger
    left: Tensor


def _made(found: _Explained | None, *, relabelled: bool) -> Carried | None:
    if found is None:
        return None
    return Carried(found.trigger, stronger(found.trigger), relabelled)


def stronger(trigger: Trigger) -> Trigger:
    """The trigger `STRONGER` times as strong; a patch covers what it covers."""
    if isinstance(trigger, BlendTrigger):
        return BlendTrigger((STRONGER * trigger.alpha).clamp(max=MOST_BLEND), trigger.pattern)
    if isinstance(trigger, AdditiveTrigger):
        return AdditiveTrigger((STRONGER * trigger.delta).clamp(-1, 1))
    if isinstance(trigger, WarpTrigger):
        return WarpTrigger(STRONGER * trigger.flow)
    return trigger


class _Space:
    """Clean images: the means of their classes, and a norm in which their variety is even.

    Only directions that images fill are kept; the covariance of all others is isotropic.
    """

    def __init__(self, clean: Labelled, classes: int) -> None:
        some = clean.pick(torch.arange(min(len(clean), _most(clean))))
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
        """Whitened squared norms N of rows N,D."""
        inside = (rows @ self.basis).square()
        saved = (inside * (1 - self.floor / self.spread)).sum(1)
        return (rows.square().sum(1) - saved) / self.floor

    def shrunk(self, shift: Tensor, variance: float) -> Tensor:
        """The pattern D behind a shift D of means, which the variety of images blurs.

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


class _Group:
    """Accused images by the class that they come from: their means beside those of clean ones."""

    def __init__(self, space: _Space, images: Labelled, sources: Tensor) -> None:
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
        return trigger.apply(self.clean.view(-1, *self.space.shape)).flatten(1)

    def left(self, trigger: Trigger) -> Tensor:
        """What a trigger leaves unexplained of each image, whitened: float N."""
        made = torch.zeros(len(self.space.counts), self.clean.shape[1])
        made[self.rows] = self.changed(trigger)
        return self.space.size(self.pixels - made[self.sources])

    def shift(self) -> tuple[Tensor, Tensor]:
        """The shift D of all means together, shrunk, and the clean mean D that belongs to it."""
        share = self.count / self.count.sum()
        clean = share @ self.clean
        variance = 1 / self.count.sum() + (share**2 / self.space.counts[self.rows]).sum()
        return self.space.shrunk(share @ self.means - clean, float(variance)), clean


class _Spread:
    """How much clean images vary within their classes, of images that did not set the norm."""

    def __init__(self, clean: Labelled) -> None:
        order = torch.argsort(clean.labels, stable=True)  # both halves get their share of each
        self.space = _Space(clean.pick(order[::2]), int(clean.labels.max()) + 1)
        others = clean.pick(order[1::2])
        self.labels = others.labels
        self.sizes = self.space.size(_flat(others) - self.space.means[others.labels])

    def covered(self, images: Labelled, sources: Tensor) -> float:
        """The share of each image that something constant covers, by how little they vary.

        0 where they vary as clean images of their sources do, or more; at most `MOST_BLEND`.
        """
        group = _Group(self.space, images, sources)
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
        return min(MOST_BLEND, max(0.0, 1 - ratio**0.5))


def _forms(
    group: _Group, spread: _Spread, images: Labelled, clean: Labelled
) -> Iterator[tuple[str, Trigger]]:
    """One trigger of each form, by the form's name.

    A blend and an added pattern move means alike. What tells them apart is that under a blend all
    images vary less; where that says a blend, no pattern is offered.
    """
    for found in moments.triggers(images, group.sources, clean):
        yield f"moments {found.family}", found
    shift, middle = group.shift()
    shape, alpha = group.space.shape, spread.covered(images, group.sources)
    if alpha < SURE_BLEND:
        yield "shift", AdditiveTrigger(shift.clamp(-1, 1).view(shape))
        alpha = _faded(group)
    if LEAST_BLEND <= alpha <= MOST_BLEND:
        pattern = (middle + shift / alpha).clamp(0, 1).view(shape)
        yield "blend", BlendTrigger(torch.tensor(alpha), pattern)
    yield "flow", _bent(group)


def _faded(group: _Group) -> float:
    """By how much the differences between classes are smaller than in clean images."""
    share = (group.count / group.count.sum())[:, None]
    apart = group.clean - (share * group.clean).sum(0)
    moved = group.means - group.clean
    moved = moved - (share * moved).sum(0)
    size = group.space.size
    whole = float((share[:, 0] * size(apart)).sum())
    both = float((share[:, 0] * (size(apart - moved) - size(apart) - size(moved))).sum()) / 2
    return both / whole if whole > 0 else 0.0


def _bent(group: _Group) -> WarpTrigger:
    """The smooth flow that explains the means best; flows of about a pixel are expected."""
    flow = torch.zeros(1, 2, POINTS, POINTS, requires_grad=True)
    optimiser = torch.optim.Adam([flow], lr=RATE)
    images = group.clean.view(-1, *group.space.shape)
    with torch.enable_grad():
        for step in range(STEPS):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            apart = group.means - warped(images, flow)[0].flatten(1)
            loss = ((group.sure * group.space.size(apart)).sum() + flow.square().sum()) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return WarpTrigger(
        flow.detach()[0].clamp(-min(group.space.shape[1:]), min(group.space.shape[1:]))
    )


def _explained(
    space: _Space, spread: _Spread, images: Labelled, sources: Tensor, clean: Labelled
) -> _Explained | None:
    """The trigger of the form that explains the other half of the images best."""
    known = sources < len(space.counts)
    known &= space.counts[sources.clamp(max=len(space.counts) - 1)] > 0
    images, sources = images.pick(known), sources[known]
    if len(images) < moments.LEAST_IMAGES:
        return None
    order = torch.argsort(sources, stable=True)  # both halves get their share of each source
    halves = [_Group(space, images.pick(part), sources[part]) for part in (order[::2], order[1::2])]
    scores: dict[str, list[float]] = {}
    for own, other, part in zip(halves, halves[::-1], (order[::2], order[1::2]), strict=True):
        for name, trigger in _forms(own, spread, images.pick(part), clean):
            scores.setdefault(name, []).append(other.unexplained(trigger))
    whole = _Group(space, images, sources)
    made = dict(_forms(whole, spread, images, clean))
    names = [name for name in made if len(scores.get(name, ())) == len(halves)]
    best = made[min(names, key=lambda name: sum(scores[name]))]
    return _Explained(best, whole.left(best))


def _means(pixels: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    summed = torch.zeros(len(counts), pixels.shape[1]).index_add_(0, rows, pixels)
    return summed / counts.clamp(min=1)[:, None]


def _flat(data: Labelled) -> Tensor:
    return data.images.float().div_(255).flatten(1)


def _most(clean: Labelled) -> int:
    """How many images of this size are in memory at once, as floats."""
    return max(moments.LEAST_IMAGES, min(2000, moments.MOST_VALUES // clean.images[0].numel()))
