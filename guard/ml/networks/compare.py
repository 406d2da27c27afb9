"""How two models differ, in their predictions and in the weights of each layer."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from guard.ml.cleanset import Labelled
from guard.ml.measure import predict


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How far one layer's numbers are apart in two models A and B.

    `distance` is the L2 norm of the difference, `relative` that over A's norm (infinite if A's is
    zero). `kind` is `weights` (learnable) or `statistics` (buffers, such as those of batch norm);
    `numbers` counts them.
    """

    layer: str
    kind: str
    numbers: int
    distance: float
    relative: float


def agreement(a: nn.Module, b: nn.Module, images: Labelled) -> float:
    """The share (0..1) of images for which both models predict the same class.

    Raises:
        MethodFailed: a logit is not finite.
    """
    same = predict(a, images) == predict(b, images)
    return float(same.double().mean())


def moved(a: nn.Module, b: nn.Module) -> tuple[tuple[Moved, ...], tuple[str, ...]]:
    """How far each layer of `b` is from `a`'s, the most changed first, and the unmatched tensors.

    A layer's floating-point tensors count together, its parameters apart from its buffers; counters
    are left out.
    """
    learnable = {name for name, _ in a.named_parameters()}
    before, after = a.state_dict(), b.state_dict()
    matched = [
        name
        for name, tensor in before.items()
        if name in after and after[name].shape == tensor.shape
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for name in matched:
        if before[name].is_floating_point():
            layer = name.rpartition(".")[0] or name
            groups.setdefault((layer, "weights" if name in learnable else "statistics"), []).append(
                name
            )
    layers = []
    for (layer, kind), members in groups.items():
        distance = _norm(
            [after[name].cpu().double() - before[name].cpu().double() for name in members]
        )
        size = _norm([before[name].cpu().double() for name in members])
        relative = distance / size if size else (math.inf if distance else 0.0)
        layers.append(
            Moved(
                layer=layer,
                kind=kind,
                numbers=sum(before[name].numel() for name in members),
                distance=distance,
                relative=relative,
            )
        )
    layers.sort(key=lambda one: -one.relative)
    return tuple(layers), tuple(sorted((set(before) | set(after)) - set(matched)))


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.pow(2).sum()) for tensor in tensors))
