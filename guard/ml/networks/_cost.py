"""Refuse a network whose single forward pass costs more than a budget, from shapes alone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from guard.core.contracts import Budget
from guard.core.errors import ManifestRejected


class _Counting(TorchDispatchMode):
    """Counts what runs inside the block, and ends it with `over_budget`."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._budget = budget
        self._operations = self._numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self._operations += int(count(*args, **given, out_val=out))
        self._numbers += sum(one.numel() for one in tree_leaves(out) if isinstance(one, Tensor))
        for found, limit, what in (
            (self._operations, self._budget.operations, "operations"),
            (self._numbers, self._budget.activations, "numbers between its layers"),
        ):
            if found > limit:
                raise ManifestRejected(
                    f"The network takes more than {limit} {what} for one image; use a smaller "
                    "model or smaller images.",
                    code="over_budget",
                )
        return out


def refuse_costly(outline: nn.Module, size: tuple[int, int, int], budget: Budget) -> None:
    """Send one image of this size through a network on the meta device, which computes nothing.

    What does not run there is left to whoever runs it for real, within the limits of a job.

    Raises:
        ManifestRejected: `over_budget`.
    """
    image = torch.empty((1, *size), device="meta")
    try:
        with torch.device("meta"), torch.no_grad(), _Counting(budget):
            outline.eval()(image)
    except ManifestRejected:
        raise
    except Exception:  # noqa: BLE001 - any layer, any complaint; `load` names it
        return
