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

from guard.core.progress import Progress, part_of, silent
from guard.ml.cleanset import Labelled
from guard.ml.sifting import moments
from guard.ml.sifting.whitened import MOST_COVERED, Clean, Group, most
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, Trigger, WarpTrigger
from guard.ml.triggers.warp import MOST_SHIFT, warped

LEAST_BLEND, MOST_BLEND = 0.02, MOST_COVERED
SURE_BLEND = 0.08  # images vary so much less: on development sets blends did by .16 and more
POINTS, STEPS, RATE = 4, 150, 0.1  # of the flow that is fitted, in pixels
STRONGER = 2.0  # a stamp at test time; SIG and Adaptive-Blend raise theirs by as much and more
WON = 0.5  # share of images that must be nearer to what sources of other labels predict


@dataclass(frozen=True)
class Carried:
    """A trigger as accused images carry it, and the same up to twice as strong.

    Nothing in a training set says how strongly an attacker stamps later: the truth lies between.
    `relabelled`: the images come from other classes than their label.
    """

    trigger: Trigger
    stronger: Trigger
    relabelled: bool


def carried(
    suspects: Labelled,
    sources: Tensor,
    clean: Clean,
    *,
    mapped: bool = False,
    progress: Progress = silent,
) -> Carried | None:
    """The trigger that accused images of one label carry, or those that a label map moved.

    Args:
        suspects: accused images, the most suspicious first; some may be clean.
        sources: int64 N, the class that each seems to come from, -1 where that is not known.
        clean: clean images of all classes. A class that has none is as good as unknown.
        mapped: they have several labels, and it is known that none is its own.
        progress: called with the share done; may raise.

    Returns:
        None where fewer than `moments.LEAST_IMAGES` can be set beside clean ones.
    """
    taken = suspects.pick(torch.arange(min(len(suspects), most(suspects))))
    sources, own = sources[: len(taken)], taken.labels
    known, labelled = clean.knows(sources), clean.knows(own)
    moved = known & (sources != own)
    strange = _explained(clean, taken.pick(moved), sources[moved], part_of(progress, 0, 3, ""))
    if mapped:
        return _made(strange, relabelled=True)
    if strange is not None and 2 * int(moved.sum()) >= int(known.sum()):
        both = moved & labelled
        still = _explained(clean, taken.pick(both), own[both], part_of(progress, 1, 3, ""))
        if still is None or _share_less(strange.left[labelled[moved]], still.left) >= WON:
            return _made(strange, relabelled=True)
    alike = taken.pick(labelled)
    kept = _explained(clean, alike, alike.labels, part_of(progress, 2, 3, ""))
    return _made(kept, relabelled=False)


def _share_less(ones: Tensor, others: Tensor) -> float:
    return float((ones < others).float().mean())


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
    """The trigger `STRONGER` times as strong, as far as its form goes; a patch stays as it is."""
    if isinstance(trigger, BlendTrigger):
        return BlendTrigger((STRONGER * trigger.alpha).clamp(max=MOST_BLEND), trigger.pattern)
    if isinstance(trigger, AdditiveTrigger):
        return AdditiveTrigger((STRONGER * trigger.delta).clamp(-1, 1))
    if isinstance(trigger, WarpTrigger):
        return WarpTrigger((STRONGER * trigger.flow).clamp(-MOST_SHIFT, MOST_SHIFT))
    return trigger


def _forms(
    group: Group, images: Labelled, clean: Clean, progress: Progress
) -> Iterator[tuple[str, Trigger]]:
    """One trigger of each form, by the form's name.

    A blend and an added pattern move means alike. What tells them apart is that under a blend all
    images vary less; where that says a blend, no pattern is offered.
    """
    for found in moments.triggers(images, group.sources, clean.images):
        yield f"moments {found.family}", found
    shift, middle = group.shift()
    shape, alpha = group.space.shape, clean.spread.covered(images, group.sources)
    if alpha < SURE_BLEND:
        yield "shift", AdditiveTrigger(shift.clamp(-1, 1).view(shape))
        alpha = _faded(group)
    if LEAST_BLEND <= alpha <= MOST_BLEND:
        pattern = (middle + shift / alpha).clamp(0, 1).view(shape)
        yield "blend", BlendTrigger(torch.tensor(alpha), pattern)
    yield "flow", _bent(group, progress)


def _faded(group: Group) -> float:
    """By how much the differences between classes are smaller than in clean images."""
    share = (group.count / group.count.sum())[:, None]
    apart = group.clean - (share * group.clean).sum(0)
    moved = group.means - group.clean
    moved = moved - (share * moved).sum(0)
    size = group.space.size
    whole = float((share[:, 0] * size(apart)).sum())
    both = float((share[:, 0] * (size(apart - moved) - size(apart) - size(moved))).sum()) / 2
    return both / whole if whole > 0 else 0.0


def _bent(group: Group, progress: Progress) -> WarpTrigger:
    """The smooth flow that explains the means best; flows of about a pixel are expected."""
    flow = torch.zeros(1, 2, POINTS, POINTS, requires_grad=True)
    optimiser = torch.optim.Adam([flow], lr=RATE)
    images = group.clean.view(-1, *group.space.shape)
    with torch.enable_grad():
        for step in range(STEPS):
            progress(step / STEPS)
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            apart = group.means - warped(images, flow)[0].flatten(1)
            loss = ((group.sure * group.space.size(apart)).sum() + flow.square().sum()) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    most_shift = min(MOST_SHIFT, *group.space.shape[1:])
    return WarpTrigger(flow.detach()[0].clamp(-most_shift, most_shift))


def _explained(
    clean: Clean, images: Labelled, sources: Tensor, progress: Progress
) -> _Explained | None:
    """The trigger of the form that explains the other half of the images best.

    All sources have a mean.
    """
    if len(images) < moments.LEAST_IMAGES:
        return None
    order = torch.argsort(sources, stable=True)  # both halves get their share of each source
    parts = (order[::2], order[1::2])
    halves = [Group(clean.space, images.pick(part), sources[part]) for part in parts]
    scores: dict[str, list[float]] = {}
    for place, (own, other) in enumerate(zip(halves, halves[::-1], strict=True)):
        step = part_of(progress, place, 3, "")
        for name, trigger in _forms(own, images.pick(parts[place]), clean, step):
            scores.setdefault(name, []).append(other.unexplained(trigger))
    whole = Group(clean.space, images, sources)
    made = dict(_forms(whole, images, clean, part_of(progress, 2, 3, "")))
    names = [name for name in made if len(scores.get(name, ())) == len(halves)]
    best = made[min(names, key=lambda name: sum(scores[name]))]
    return _Explained(best, whole.left(best))
