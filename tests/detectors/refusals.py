"""The clean sets and models that every class-comparing detector must refuse.

And what it calls the reason.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from tests import toys

EXPECTED = {
    "four classes": "few_classes",
    "four images a class": "few_images",
    "a class without images": "few_images",
    "twelve calibration images": "few_images",
    "shifted labels": "near_chance",
    "another class order": "near_chance",
    "labels out of range": "bad_labels",
    "no skill": "near_chance",
    "a weight is not finite": "non_finite",
    "activations overflow": "non_finite",
}


class BreaksOffTheData(toys.Matcher):
    """Finite on clean pictures, NaN as soon as the dark corner is touched.

    A way to blind a scanner.
    """

    def forward(self, images: Tensor) -> Tensor:
        touched = images[:, :, toys.PATCH[0], toys.PATCH[1]].amax((1, 2, 3)) > 0.01
        return super().forward(images).masked_fill(touched[:, None], math.nan)


def breaks_off_the_data() -> nn.Module:
    """A model that every check on clean pictures lets through."""
    return BreaksOffTheData(toys.prototypes()).eval()


def code(detector: Any, model: nn.Module, clean: CleanSet | None = None) -> str:
    """Why `detector` refuses, as an error code."""
    with pytest.raises(MethodFailed) as caught:
        detector(model, clean or toys.clean_set(), seed=0)
    return caught.value.code


def codes(detector: Any) -> dict[str, str]:
    """Why `detector` refuses each of the unfit clean sets and models."""
    sets = {what: code(detector, toys.honest(), clean) for what, clean in _sets().items()}
    return sets | {what: code(detector, model) for what, model in _models().items()}


def _sets() -> dict[str, CleanSet]:
    whole = toys.clean_set()
    return {
        "four classes": replace(whole, classes=4),
        "four images a class": replace(whole, search=whole.search.pick(torch.arange(24))),
        "a class without images": replace(
            whole, search=whole.search.pick(whole.search.labels != 3)
        ),
        "twelve calibration images": replace(
            whole, calibration=whole.calibration.pick(torch.arange(12))
        ),
        "shifted labels": replace(whole, calibration=_shifted(whole.calibration)),
        "another class order": replace(
            whole, search=_shifted(whole.search), calibration=_shifted(whole.calibration)
        ),
        "labels out of range": replace(
            whole, search=Labelled(whole.search.images, whole.search.labels + 1)
        ),
    }


def _shifted(part: Labelled) -> Labelled:
    return Labelled(part.images, (part.labels + 1) % toys.CLASSES)


def _models() -> dict[str, nn.Module]:
    blank, broken, huge = toys.honest(), toys.honest(), toys.honest()
    blank.weight.data.zero_()  # the same logits for every picture
    broken.weight.data[0, 0] = math.nan
    huge.weight.data *= torch.finfo(torch.float32).max  # each weight is finite, their sums are not
    return {"no skill": blank, "a weight is not finite": broken, "activations overflow": huge}
