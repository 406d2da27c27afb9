"""Find classes with an unusually small patch, and search for larger patches of these classes.

Unlearning defenses use both: the smallest patch is only one of many that activate the backdoor.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.core.pvalues import LEAST_CLASSES
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.search.patches import PatchEffort, Patches, patches_within, smallest_patches
from guard.ml.statistics import low_outliers


class PatchStamps(NamedTuple):
    """M patches to train on: float masks M,1,H,W and patterns M,C,H,W, both in 0..1."""

    masks: Tensor
    patterns: Tensor

    def on_some(self, images: Tensor) -> Tensor:
        """Float images N,C,H,W in [0, 1], each with one of the patches, drawn at random.

        Draws from torch's global CPU generator.
        """
        chosen = torch.randint(len(self.masks), (len(images),)).to(images.device)
        return images + self.masks[chosen] * (self.patterns[chosen] - images)


def require_classes(clean: CleanSet, *, method: str) -> None:
    """Refuse a task with too few classes for one to stand out.

    Raises:
        MethodFailed: `few_classes`.
    """
    if clean.classes < LEAST_CLASSES:
        raise MethodFailed(
            f"{method} needs at least {LEAST_CLASSES} classes to find an unusual one.",
            code="few_classes",
        )


def unusual_patches(
    model: nn.Module,
    clean: CleanSet,
    effort: PatchEffort,
    progress: Progress,
    *,
    alpha: float,
    fold: float,
    far: float | None = None,
) -> Patches:
    """The smallest patches of the classes whose norms are outliers of `low_outliers`; maybe none.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode; the gradients of its parameters are turned off.
        clean: its search part is used.
        effort: the length of the search.
        progress: called with the share done; may raise.
        alpha, fold: a class stands out if its p value is at most `alpha` and its patch at least
            `fold` times smaller than its siblings'.
        far: a ratio at which the smallest patch of all stands out whatever its p value; None for
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
    model: nn.Module,
    data: Labelled,
    found: Patches,
    effort: PatchEffort,
    *,
    sizes: int,
    largest: float,
) -> list[PatchStamps]:
    """Search for each patch again at `sizes` norms, from its own to `largest` times as large.

    The norms are in equal ratios.
    """
    factors = torch.logspace(0, math.log(largest), sizes, base=math.e).tolist()
    stamps = []
    for row, norm in enumerate(found.norms.tolist()):
        for times in factors:
            within = patches_within(
                model, data, found.pick([row]), times * norm, effort, _unwatched
            )
            stamps.append(PatchStamps(within.masks, within.patterns))
    return stamps


def together(stamps: list[PatchStamps]) -> PatchStamps:
    """All patches of several sets as one set."""
    masks, patterns = (torch.cat(parts) for parts in zip(*stamps, strict=True))
    return PatchStamps(masks, patterns)


def _unwatched(_done: float) -> None:
    """Ignore the progress of a short search."""
