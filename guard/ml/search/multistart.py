"""Measure how large a patch each class needs by several searches, to depend less on chance.

The size of a class's patch relative to its siblings' decides verdicts, and the norm of one search
varies by about a tenth from seed to seed. Further searches use half as many images a step: in the
same time two of them give more information than one of full size, since most of the variance comes
from the starting point.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from guard.ml.cleanset import Labelled
from guard.ml.search.patches import PatchEffort, Patches, smallest_patches


def several_searches(
    model: nn.Module,
    data: Labelled,
    targets: Tensor,
    effort: PatchEffort,
    again: int,
    watch: Callable[[float], None],
) -> tuple[Patches, list[float]]:
    """Search for the smallest patch of each class once, and `again` times from new starts.

    Draws from torch's global CPU generator and raises as `smallest_patches`.

    Args:
        model: in eval mode, its parameters without gradients.
        data: images uint8 N,C,H,W of at least two classes.
        targets: classes, int64 K.
        effort: the length of the first search.
        again: the number of further searches.
        watch: called with the share done; may raise.

    Returns:
        The smallest patch of each class over all searches; and for each class the log of `balance`,
        averaged over the searches, since the smallest patch alone may be due to chance.
    """
    less, whole = (
        replace(effort, batch=max(1, effort.batch // 2)),
        2 + again,
    )  # the first counts as two
    found = smallest_patches(model, data, targets, effort, lambda done: watch(2 * done / whole))
    logs = [found.balance.log()]
    for turn in range(again):

        def watch_search(done: float, turn: int = turn) -> None:
            watch((2 + turn + done) / whole)

        more = smallest_patches(model, data, targets, less, watch_search)
        logs.append(more.balance.log())
        found = found.or_smaller(more)
    return found, list(torch.stack(logs).mean(0).tolist())
