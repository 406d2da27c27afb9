"""Which classes have an unusually small patch: the question that unlearning defenses ask before and after."""

import torch
from torch import nn

from guard.core.contracts import Progress
from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet
from guard.ml.inversion import Effort, Patches, smallest_patches
from guard.ml.statistics import low_outliers

LEAST_CLASSES = 5  # with fewer no class can be told to be unusual


def require_classes(clean: CleanSet, *, method: str) -> None:
    """Refuse a task with so few classes that none can stand out.

    Raises:
        MethodFailed: `few_classes`.
    """
    if clean.classes < LEAST_CLASSES:
        raise MethodFailed(f"{method} needs at least {LEAST_CLASSES} classes to tell an unusual one.",
                           code="few_classes")


def unusual_patches(model: nn.Module, clean: CleanSet, effort: Effort, progress: Progress, *, alpha: float, fold: float,
                    far: float | None = None) -> Patches:
    """The smallest patches of the classes that stand out, smallest norms as tested by `low_outliers`; may be none.

    `model` must be in eval mode; its parameters are left without gradients. Draws from torch's global CPU generator.

    Args:
        alpha, fold: a class stands out at this level, and with a patch this many times under its siblings'.
        far: a ratio at which the smallest patch of all stands out whatever its level; None for never.

    Raises:
        MethodFailed: the model gives logits that are not finite.
    """
    model.requires_grad_(requires_grad=False)
    patches = smallest_patches(model, clean.search, torch.arange(clean.classes), effort, progress)
    tests = low_outliers(patches.norms.log().tolist(), alpha=alpha)
    rows = {row for row, test in enumerate(tests) if test.p <= alpha and test.fold >= fold}
    smallest = int(patches.norms.argmin())
    if far is not None and tests[smallest].fold >= far:
        rows.add(smallest)
    return patches.pick([row for row in sorted(rows) if bool(patches.reached[row])])
