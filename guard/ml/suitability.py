"""Check before a long search that a model and a clean set can be judged class by class at all."""

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.pvalues import LEAST_CLASSES
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy

LEAST_PER_CLASS = 5  # images of each class in the search part
LEAST_CALIBRATION = 20


def check_suitable(model: nn.Module, clean: CleanSet, method: str) -> None:
    """Refuse too few classes or images, labels out of range, and a model near chance.

    Args:
        model: takes float images N,C,H,W in [0, 1].
        clean: what the method may see.
        method: the method's name as it appears in a sentence.

    Raises:
        MethodFailed: with the code few_classes, bad_labels, few_images, near_chance or non_finite.
    """
    if clean.classes < LEAST_CLASSES:
        raise MethodFailed(
            f"The model has {clean.classes} classes; with fewer than {LEAST_CLASSES} there are "
            "too few siblings to "
            "compare a class with.",
            code="few_classes",
        )
    labels = torch.cat([clean.search.labels, clean.calibration.labels])
    if not bool(((labels >= 0) & (labels < clean.classes)).all()):
        raise MethodFailed(
            f"The clean set has labels outside 0..{clean.classes - 1}; curate it again.",
            code="bad_labels",
        )
    counts = torch.bincount(clean.search.labels, minlength=clean.classes)
    rarest = int(counts.argmin())
    if counts[rarest] < LEAST_PER_CLASS or len(clean.calibration) < LEAST_CALIBRATION:
        raise MethodFailed(
            f"{method} needs {LEAST_PER_CLASS} search images of each class and "
            f"{LEAST_CALIBRATION} calibration "
            f"images; class {rarest} has {int(counts[rarest])}, calibration "
            f"{len(clean.calibration)}. Add images.",
            code="few_images",
        )
    seen = accuracy(model, clean.calibration, clean.classes).overall
    if not seen >= 2 / clean.classes:
        raise MethodFailed(
            f"The model is right on {seen:.1%} of the calibration images, near chance; check that "
            "the clean set's "
            "class order is the model's.",
            code="near_chance",
        )


def channels_last(model: nn.Module) -> None:
    """Store 4-d weights as NHWC, with which convolutions on a CPU are about 1.5 times as fast.

    The weights' values stay the same.
    """
    _lay(model, torch.channels_last)


def channels_first(model: nn.Module) -> None:
    """Undo `channels_last`, since a file holds weights in torch's own order."""
    _lay(model, torch.contiguous_format)


def _lay(model: nn.Module, order: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=order)
