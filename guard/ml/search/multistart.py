"""How large a patch each class needs, whatever the luck of one search: several searches.

Where a class stands among its siblings decides verdicts, and one search's norm moves by about a
tenth from seed to seed. Further searches look at half as many pictures a step: for the same time
two such ones tell more than one of full size, since most of the luck lies in where a search starts.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from guard.ml.cleanset import Labelled
from guard.ml.search.patches import Effort, Patches, smallest_patches


def several_searches(
    model: nn.Module,
    data: Labelled,
    targets: Tensor,
    effort: Effort,
    again: int,
    watch: Callable[[float], None],
) -> tuple[Patches, list[float]]:
    """The smallest patch of each class over one search and `again` more from new starts.

    And what is usual.

    The second answer is, for each class, the log of `balance`, averaged over the searches: of two
    classes that need as much, one may owe its smallest patch to luck. Draws from torch's global CPU
    generator and raises as `smallest_patches`.

    Args:
        effort: of the first search.
        watch: told the share done; may raise.
    """
    less, whole = (
        replace(effort, batch=max(1, effort.batch // 2)),
        2 + again,
    )  # the first counts as two
    found = smallest_patches(model, data, targets, effort, lambda done: watch(2 * done / whole))
    logs = [found.balance.log()]
    for turn in range(again):

        def told(done: float, turn: int = turn) -> None:
            watch((2 + turn + done) / whole)

        more = smallest_patches(model, data, targets, less, told)
        logs.append(more.balance.log())
        found = found.or_smaller(more)
    return found, list(torch.stack(logs).mean(0).tolist())
