"""Stop a constructor that grows beyond a budget, while it grows.

A depth or a width from an uploaded `config.json` decides how many layers a constructor makes. Even
on the meta device, where tensors take no memory, layers do, so they are counted as they are
registered.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from guard.core.contracts import Budget
from guard.core.costs import over_budget
from guard.core.errors import ManifestRejected

_MODULES_PER_TENSOR = 5
#: What fills a tensor with numbers, which most of the time of a constructor goes into.
_FILLS = frozenset(
    {
        Tensor.add_,
        Tensor.clamp_,
        Tensor.erfinv_,
        Tensor.fill_,
        Tensor.mul_,
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.zero_,
    }
)


class Unfilled(TorchFunctionMode):
    """Leaves out the filling of tensors on the meta device, which hold no numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of torch, or return the tensor that it would fill."""
        del types
        if func in _FILLS and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded(budget: Budget) -> Iterator[None]:
    """Limit what this thread may register inside the block to the budget's tensors and seconds.

    Seconds are of the thread's processor time: on a busy machine an honest network, too, waits.

    Raises:
        ManifestRejected: `over_budget`, from inside the constructor.
    """
    thread = threading.get_ident()
    deadline = time.thread_time() + budget.seconds
    numbers = tensors = modules = 0

    def count_tensor(_: nn.Module, _name: str, value: Tensor | None) -> None:
        nonlocal numbers, tensors
        if threading.get_ident() == thread and value is not None:
            numbers += value.numel()
            tensors += 1
            _refuse_if(numbers > budget.parameters, budget.parameters, "parameters")
            _refuse_if(tensors > budget.network_tensors, budget.network_tensors, "tensors")

    def count_module(_: nn.Module, _name: str, _value: nn.Module | None) -> None:
        nonlocal modules
        if threading.get_ident() == thread:
            modules += 1
            most = _MODULES_PER_TENSOR * budget.network_tensors
            _refuse_if(modules > most, most, "layers")
            if time.thread_time() > deadline:
                raise ManifestRejected(
                    f"Over budget: building the architecture takes over {budget.seconds:.0f} s; "
                    "use a smaller model.",
                    code="over_budget",
                )

    handles = [
        hooks.register_module_parameter_registration_hook(count_tensor),
        hooks.register_module_buffer_registration_hook(count_tensor),
        hooks.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refuse_if(over: bool, limit: int, of: str) -> None:  # noqa: FBT001 - a private shorthand
    if over:
        setting = "GUARD_MAX_PARAMETERS" if of == "parameters" else "GUARD_MAX_NETWORK_TENSORS"
        raise over_budget(f"the architecture has more than {limit:,} {of}", setting)
