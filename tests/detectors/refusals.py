"""The clean sets and models that every class-comparing detector must refuse, and what it calls the reason."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from tests import toys

EXPECTED = {"four classes": "few_classes", "four images a class": "few_images", "a class without images": "few_images",
            "twelve calibration images": "few_images", "shifted labels": "near_chance",
            "labels out of range": "bad_labels"}


def codes(detector: Any) -> dict[str, str]:
    """Why `detector` refuses each of the unfit clean sets, as an error code."""
    whole = toys.clean_set()
    shifted = Labelled(whole.calibration.images, (whole.calibration.labels + 1) % toys.CLASSES)
    unfit = {
        "four classes": replace(whole, classes=4),
        "four images a class": replace(whole, search=whole.search.pick(torch.arange(24))),
        "a class without images": replace(whole, search=whole.search.pick(whole.search.labels != 3)),
        "twelve calibration images": replace(whole, calibration=whole.calibration.pick(torch.arange(12))),
        "shifted labels": replace(whole, calibration=shifted),
        "labels out of range": replace(whole, search=Labelled(whole.search.images, whole.search.labels + 1)),
    }
    return {what: _code(detector, clean) for what, clean in unfit.items()}


def _code(detector: Any, clean: CleanSet) -> str:
    with pytest.raises(MethodFailed) as caught:
        detector(toys.honest(), clean, seed=0)
    return caught.value.code
