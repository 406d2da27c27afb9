"""How large a patch each class needs, whatever the luck of one search: several searches, averaged.

Where a class stands among its siblings decides verdicts, and one search's norm moves by about a tenth from seed to
seed. Further searches look at half as many pictures a step: for the same time two such ones tell more than one of full
size, since most of the luck lies in where a search starts.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from guard.ml.cleanset import Labelled
from guard.ml.inversion import Effort, Patches, smallest_patches


def usual_logs(model: nn.Module, data: Labelled, first: Patches, effort: Effort, again: int,
               watch: Callable[[float], None]) -> list[float]:
    """For each class of `first` the log of `balance`, averaged over that search and `again` more from new starts.

    Draws from torch's global CPU generator and raises as `smallest_patches`.

    Args:
        effort: of the first search.
        watch: told the share done; may raise.
    """
    less = replace(effort, batch=max(1, effort.batch // 2))
    logs = [first.balance.log()]
    for turn in range(again):
        def told(done: float, turn: int = turn) -> None:
            watch((turn + done) / again)

        logs.append(smallest_patches(model, data, first.targets.cpu(), less, told).balance.log())
    return list(torch.stack(logs).mean(0).tolist())
