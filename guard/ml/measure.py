"""Measure what a model does: predictions, clean accuracy, attack success rate (ASR)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from guard.core.errors import InputError, MethodFailed
from guard.core.evidence import Accuracy, AsrEstimate, Target, TriggerLike
from guard.core.states import Family
from guard.ml.cleanset import Labelled
from guard.ml.statistics import wilson
from guard.ml.triggers import MappedTrigger

BATCH = 256


class Stamper(Protocol):
    """Anything that turns float images N,C,H,W in [0, 1] into others, such as a trigger."""

    def apply(self, images: Tensor) -> Tensor:
        """Changed copies of float images N,C,H,W in [0, 1]."""


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters or else its buffers; the CPU if it has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode inside the block, and restore each one's mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def predict(
    model: nn.Module, images: Tensor | Labelled, batch: int = BATCH, trigger: Stamper | None = None
) -> Tensor:
    """Predicted classes, int64 N on the CPU.

    Args:
        model: takes float images in [0, 1]; its modes and buffers stay as they are.
        images: uint8 N,C,H,W, or a labelled set of them.
        batch: images a forward pass.
        trigger: applied to the images first, if one is given.

    Raises:
        MethodFailed: a logit is not finite.
    """
    pixels = images.images if isinstance(images, Labelled) else images
    device = device_of(model)
    parts = [torch.empty(0, dtype=torch.int64)]
    with evaluating(model):
        for part in pixels.split(batch):
            inputs = part.to(device).float().div_(255)
            logits = model(trigger.apply(inputs) if trigger is not None else inputs)
            if not bool(torch.isfinite(logits).all()):
                raise MethodFailed(
                    "The model gives logits that are not finite; it cannot be measured.",
                    code="non_finite",
                )
            parts.append(logits.argmax(1).cpu())
    return torch.cat(parts)


def accuracy(model: nn.Module, labelled: Labelled, classes: int, batch: int = BATCH) -> Accuracy:
    """Clean accuracy overall and per class (recall); a class without images counts as 0.

    Raises:
        InputError: no images.
        MethodFailed: a logit is not finite.
    """
    if not len(labelled):
        raise InputError("Accuracy needs at least one image.")
    hits = predict(model, labelled, batch) == labelled.labels
    totals = torch.bincount(labelled.labels, minlength=classes)
    right = torch.bincount(labelled.labels[hits], minlength=classes)
    per_class = (right.double() / totals.clamp(min=1).double()).tolist()
    return Accuracy(
        overall=float(hits.double().mean()), per_class=tuple(per_class), images=len(labelled)
    )


def swapped(
    before: nn.Module, after: nn.Module, labelled: Labelled, classes: int, batch: int = BATCH
) -> tuple[tuple[int, int], ...]:
    """For each class, how many images only `before` has right, and how many only `after`.

    Raises:
        MethodFailed: a logit is not finite.
    """
    first, then = (predict(model, labelled, batch) == labelled.labels for model in (before, after))
    lost, gained = (
        torch.bincount(labelled.labels[hits], minlength=classes).tolist()
        for hits in (first & ~then, then & ~first)
    )
    return tuple(zip(lost, gained, strict=True))


def asr(
    model: nn.Module,
    labelled: Labelled,
    trigger: TriggerLike,
    target: Target,
    family: str,
    natural: float | None = None,
    budget: float | None = None,
    batch: int = BATCH,
    *,
    wanted: Tensor | None = None,
) -> AsrEstimate:
    """The share of images of other classes that the trigger sends to the target.

    The interval is Wilson's at 95 %. An all-to-all trigger carries a mapping of classes: there all
    images count, and the target of each is the class that its label maps to.

    Args:
        target: a class index, or "all-to-all" with a `MappedTrigger`.
        family: name of the trigger family.
        natural: best ASR of a sibling class at the same budget, if known; passed through.
        budget: the size of the trigger in the family's unit; passed through.
        batch: images a forward pass.
        wanted: the class that each image should get, int64 N, of a trigger without a mapping.

    Raises:
        InputError: the target is neither, the mapping lacks an image's class, or no image has
            another class.
        MethodFailed: a logit is not finite.
    """
    if wanted is None:
        wanted = _wanted(labelled, trigger, target)
    others, wanted = labelled.pick(labelled.labels != wanted), wanted[labelled.labels != wanted]
    if not len(others):
        raise InputError(f"Every image has class {target}; ASR needs images of other classes.")
    hits = int((predict(model, others, batch, trigger) == wanted).sum())
    low, high = wilson(hits, len(others))
    return AsrEstimate(
        target=target,
        family=family,
        successes=hits,
        trials=len(others),
        estimate=hits / len(others),
        low=low,
        high=high,
        natural=natural,
        budget=budget,
    )


def _wanted(labelled: Labelled, trigger: TriggerLike, target: Target) -> Tensor:
    """The class that the trigger should send each image to, int64 N."""
    if isinstance(target, int):
        return torch.full_like(labelled.labels, target)
    if target != Family.ALL_TO_ALL or not isinstance(trigger, MappedTrigger):
        raise InputError(
            f"ASR needs a class index as target, or all-to-all and a mapping, not {target!r}."
        )
    mapping = trigger.mapping.cpu()
    if len(labelled) and not bool((labelled.labels < len(mapping)).all()):
        raise InputError(
            f"The trigger maps {len(mapping)} classes, but an image has class "
            f"{int(labelled.labels.max())}."
        )
    return mapping[labelled.labels]
