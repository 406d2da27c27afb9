"""What a network costs, found on the meta device: from shapes, before memory is taken for it.

No weight of an upload is read, and nothing is computed but shapes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from guard.core.contracts import Budget
from guard.core.costs import against, over_budget
from guard.core.errors import ManifestRejected
from guard.core.manifest import Manifest
from guard.ml.measure import BATCH

SEARCHED = 16  # images that a search looks at together, with gradients
_COPIES = 2  # of the weights: as they were read, and in canonical form
_MARK = "_guard_comes_from_an_image"
_PATIENCE = 1_000  # steps after which a run that is over the limit is not followed to its end


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Operations and bytes of one image through a network, from shapes.

    `operations` counts each multiplication and each addition of convolutions and matrix products,
    and one for each number that another layer writes. `activations` are all numbers that a search
    with gradients keeps, `widest` is what one layer reads and writes, `weights` the state dict.
    `cut`: it was over a limit before its end, and costs more.
    """

    operations: int
    activations: int = 0
    widest: int = 0
    weights: int = 0
    cut: bool = False

    @property
    def memory(self) -> int:
        """Bytes that vetting needs at least: the weights, and the larger of its two batches."""
        return _COPIES * self.weights + max(BATCH * self.widest, SEARCHED * self.activations)


class _Enough(Exception):
    """The rest of the run only adds to what is too much already."""


class Meter(TorchDispatchMode):
    """Adds up what the operators cost that run inside the block.

    Args:
        budget: over its limits a long run is broken off.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.activations = self.widest = self.steps = 0
        self.cut = False
        self._budget = budget

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator, on shapes alone where its tensors lie on the meta device."""
        del types
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = list(_fresh(func, out))
        seen = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            self.operations += sum(tensor.numel() for tensor in made)
        else:
            self.operations += formula(*args, **kwargs, out_val=out)
        self._remember(seen, out, made)
        self.steps += 1
        if self.steps > _PATIENCE and self._is_over():
            self.cut = True
            raise _Enough
        return out

    def _remember(self, seen: list[Tensor], out: Any, made: list[Tensor]) -> None:
        """Add the memory of an operator, unless it works on weights alone: those are there once."""
        images = [one for one in seen if getattr(one, _MARK, False)]
        if not images:
            return
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                setattr(one, _MARK, True)
        written = sum(map(_size, made))
        self.activations += written
        if written:
            self.widest = max(self.widest, written + sum(map(_size, images)))

    def _is_over(self) -> bool:
        memory = max(BATCH * self.widest, SEARCHED * self.activations)
        return self.operations > self._budget.image_operations or memory > (
            self._budget.network_bytes
        )


def _fresh(func: Any, out: Any) -> Iterator[Tensor]:
    """The tensors of an operator's result that are neither views nor written in place."""
    results = out if isinstance(out, (tuple, list)) else (out,)
    declarations = func._schema.returns  # noqa: SLF001 - torch gives aliases nowhere else
    for one, declared in zip(results, declarations, strict=False):
        parts: Iterable[Any] = one if isinstance(one, (tuple, list)) else (one,)
        if declared.alias_info is None:
            yield from (part for part in parts if isinstance(part, Tensor))


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def metered(budget: Budget, *images: Tensor) -> Iterator[Meter]:
    """Measure what runs inside the block, without gradients; it may be broken off.

    The memory is that of what is computed from `images`, tensors of any shape and dtype on the
    device "meta", in any range.
    """
    for one in images:
        setattr(one, _MARK, True)
    meter = Meter(budget)
    try:
        with torch.no_grad(), meter:
            yield meter
    except _Enough:
        pass


def cost_of(outline: Callable[[], nn.Module], manifest: Manifest, budget: Budget) -> Cost:
    """What one image costs in a classifier.

    A network that does not run on its image size costs what runs of it; that it does not run is
    found when it is loaded.

    Args:
        outline: makes the network on the meta device.
        manifest: gives the image size.
        budget: over its limits a long run is not followed to its end.

    Raises:
        ManifestRejected: `cost_unknown`: what the network does depends on numbers; or as `outline`.
    """
    network = outline().eval()
    images = torch.empty((1, *manifest.input_size), device="meta")
    size = _size(images)
    with metered(budget, images) as meter:
        try:
            network(images)
        except _Enough:
            raise
        except Exception as error:
            if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
                raise ManifestRejected(
                    f"What {manifest.architecture} costs cannot be found from its shapes: "
                    f"{ascii(str(error))[:200]}; use an architecture whose layers do not depend on "
                    "the numbers in the images.",
                    code="cost_unknown",
                ) from error
    return Cost(
        operations=meter.operations,
        activations=meter.activations + size,
        widest=max(meter.widest, 2 * size),
        weights=sum(map(_size, network.state_dict().values())),
        cut=meter.cut,
    )


def refuse(cost: Cost, model: str, budget: Budget) -> None:
    """Refuse a classifier whose images cost more than the budget.

    Args:
        cost: from shapes.
        model: its name, and the size of its images.
        budget: the limits.

    Raises:
        ManifestRejected: `over_budget`.
    """
    least = " at least" if cost.cut else ""
    if cost.operations > budget.image_operations:
        needed = against(cost.operations, budget.image_operations, "operations")
        raise over_budget(
            f"one image through {model} takes{least} {needed}", "GUARD_MAX_IMAGE_OPERATIONS"
        )
    if cost.memory > budget.network_bytes:
        needed = against(cost.memory, budget.network_bytes)
        raise over_budget(
            f"the weights and the batches of a scan of {model} take{least} {needed}",
            "GUARD_MAX_NETWORK_BYTES",
        )
