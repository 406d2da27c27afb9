"""Which classes have an unusually small patch.

And what such patches look like when they may be larger.

Unlearning defenses ask this before and after: the smallest patch is one of many that obey the
attacker.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.core.pvalues import LEAST_CLASSES
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.search.patches import Effort, Patches, patches_within, smallest_patches
from guard.ml.statistics import low_outliers


class Stamps(NamedTuple):
    """Patches to train on: masks M,1,H,W and patterns M,C,H,W, both 0..1."""

    masks: Tensor
    patterns: Tensor

    def on_some(self, images: Tensor) -> Tensor:
        """Images N,C,H,W, each under one of the patches.

        Drawn from torch's global CPU generator.
        """
        chosen = torch.randint(len(self.masks), (len(images),)).to(images.device)
        return images + self.masks[chosen] * (self.patterns[chosen] - images)


def require_classes(clean: CleanSet, *, method: str) -> None:
    """Refuse a task with so few classes that none can stand out.

    Raises:
        MethodFailed: `few_classes`.
    """
    if clean.classes < LEAST_CLASSES:
        raise MethodFailed(
            f"{method} needs at least {LEAST_CLASSES} classes to tell an unusual one.",
            code="few_classes",
        )


def unusual_patches(
    model: nn.Module,
    clean: CleanSet,
    effort: Effort,
    progress: Progress,
    *,
    alpha: float,
    fold: float,
    far: float | None = None,
) -> Patches:
    """The smallest patches of the classes that stand out.

    Smallest norms as tested by `low_outliers`; may be none.

    `model` must be in eval mode; its parameters are left without gradients. Draws from torch's
    global CPU generator.

    Args:
        alpha, fold: a class stands out at this level, and with a patch this many times under its
            siblings'.
        far: a ratio at which the smallest patch of all stands out whatever its level; None for
            never.

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


def grown(
    model: nn.Module, data: Labelled, found: Patches, effort: Effort, *, sizes: int, largest: float
) -> list[Stamps]:
    """Each patch found, searched anew at `sizes` norms in equal ratios.

    From its own to `largest` times as much.
    """
    factors = torch.logspace(0, math.log(largest), sizes, base=math.e).tolist()
    stamps = []
    for row, norm in enumerate(found.norms.tolist()):
        for times in factors:
            within = patches_within(
                model, data, found.pick([row]), times * norm, effort, _unwatched
            )
            stamps.append(Stamps(within.masks, within.patterns))
    return stamps


def together(stamps: list[Stamps]) -> Stamps:
    """All of several."""
    masks, patterns = (torch.cat(parts) for parts in zip(*stamps, strict=True))
    return Stamps(masks, patterns)


def _unwatched(_done: float) -> None:
    """A short search needs no progress of its own."""
