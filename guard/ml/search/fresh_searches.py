"""Fresh patches of a class by fresh searches, for a class whose distribution could not be learnt.

Where patches work together with what they lie on, no generator finds many at once, and a search for
a single one still does (Wang et al., Neural Cleanse, S&P 2019; `guard.ml.search.patches`). From
other starting points it ends in others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.search.outlier_patches import Stamps
from guard.ml.search.patches import Effort, Watch, patches_within, smallest_patches


@dataclass(frozen=True)
class SearchedSet:
    """Patches of one class, each found by a search of its own."""

    target: int
    stamps: Stamps

    def stamp(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1]), each under one of them.

        Drawn from torch's global CPU generator.
        """
        return self.stamps.on_some(images)


def search_set(
    model: nn.Module,
    data: Labelled,
    target: int,
    room: float,
    searches: int,
    effort: Effort,
    watch: Watch,
) -> SearchedSet:
    """Search `searches` times from random starts, and let each patch that was found grow to `room`.

    `model` must be in eval mode, its parameters without gradients. Draws from torch's global CPU
    generator.

    Args:
        data: pictures of at least two classes, uint8.
        room: pixels that a mask may have (its L1 norm). A patch that needs more is another one than
            was asked for.

    Raises:
        MethodFailed: no search ends in so small a patch (`not_learnt`); a loss is not finite.
    """
    found = smallest_patches(model, data, torch.full((searches,), target), effort, watch)
    small = found.pick(
        [row for row in range(searches) if bool(found.reached[row]) and found.norms[row] <= room]
    )
    if not len(small.targets):
        raise MethodFailed(
            f"None of {searches} new searches ends in a patch of at most {room:.0f} pixels.",
            code="not_learnt",
        )
    large = patches_within(model, data, small, room, effort, watch)
    return SearchedSet(target, Stamps(large.masks, large.patterns))
