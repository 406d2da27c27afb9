"""Find new patches of a class by new searches, if their distribution could not be learnt.

If a patch works only together with the image under it, no generator finds many at once, but a
search for a single one still succeeds (Wang et al., Neural Cleanse, S&P 2019;
`guard.ml.search.patches`). Other starting points lead to other patches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.search.outlier_patches import PatchStamps
from guard.ml.search.patches import PatchEffort, Watch, patches_within, smallest_patches


@dataclass(frozen=True)
class SearchedSet:
    """Patches of one class, each found by a search of its own."""

    target: int
    stamps: PatchStamps

    def stamp(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1]), each with one of the patches, drawn at random.

        Draws from torch's global CPU generator.
        """
        return self.stamps.on_some(images)


def search_set(
    model: nn.Module,
    data: Labelled,
    target: int,
    room: float,
    searches: int,
    effort: PatchEffort,
    watch: Watch,
) -> SearchedSet:
    """Search `searches` times from random starts, and let each patch that was found grow to `room`.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode, its parameters without gradients.
        data: images uint8 N,C,H,W of at least two classes.
        target: the class to which the patches lead.
        room: the largest L1 norm of a mask, in pixels; larger patches are left out.
        searches: their number.
        effort: the length of each search.
        watch: called with the share done; may raise.

    Raises:
        MethodFailed: no search finds so small a patch (`not_learnt`); a loss is not finite.
    """
    found = smallest_patches(model, data, torch.full((searches,), target), effort, watch)
    small = found.pick(
        [row for row in range(searches) if bool(found.reached[row]) and found.norms[row] <= room]
    )
    if not len(small.targets):
        raise MethodFailed(
            f"None of {searches} new searches finds a patch of at most {room:.0f} pixels.",
            code="not_learnt",
        )
    large = patches_within(model, data, small, room, effort, watch)
    return SearchedSet(target, PatchStamps(large.masks, large.patterns))
