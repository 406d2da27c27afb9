"""Stop a constructor that grows beyond a budget, while it grows.

A depth or a width from an uploaded `config.json` decides how many layers a constructor makes. Even
on the meta device, where tensors take no memory, layers do, so they are counted as they are
registered.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from guard.core.contracts import Budget
from guard.core.errors import ManifestRejected

_MODULES_PER_TENSOR = 5


@contextmanager
def bounded(budget: Budget) -> Iterator[None]:
    """Limit what this thread may register inside the block to the budget's tensors and seconds.

    Raises:
        ManifestRejected: `over_budget`, from inside the constructor.
    """
    thread = threading.get_ident()
    deadline = time.monotonic() + budget.seconds
    numbers = tensors = modules = 0

    def count_tensor(_: nn.Module, _name: str, value: Tensor | None) -> None:
        nonlocal numbers, tensors
        if threading.get_ident() == thread and value is not None:
            numbers += value.numel()
            tensors += 1
            _refuse_if(numbers > budget.parameters, f"more than {budget.parameters} parameters")
            _refuse_if(tensors > budget.tensors, f"more than {budget.tensors} tensors")

    def count_module(_: nn.Module, _name: str, _value: nn.Module | None) -> None:
        nonlocal modules
        if threading.get_ident() == thread:
            modules += 1
            _refuse_if(modules > _MODULES_PER_TENSOR * budget.tensors, "too many layers")
            _refuse_if(time.monotonic() > deadline, f"more than {budget.seconds:.0f} s to build")

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


def _refuse_if(over: bool, what: str) -> None:  # noqa: FBT001 - a private shorthand
    if over:
        raise ManifestRejected(
            f"The architecture has {what}; use a smaller model.", code="over_budget"
        )
