"""Find a network's neurons in its data flow, and prune some of them without losing the task.

A neuron is an output channel of a convolution or an output of a linear layer, in any architecture;
the outputs of the head are classes, not neurons.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.dataflow import Flow, Layer, flow_of

#: Changes a model in place.
Cut = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Hidden:
    """A layer whose rows are neurons, and the norm with a scale per neuron that follows, if any."""

    layer: Layer
    norm: Layer | None = None

    def silence(self, model: nn.Module, rows: Tensor) -> None:
        """Set the weights of these neurons to zero, those of the norm if there is one.

        Args:
            model: changed in place.
            rows: int64 indices or a boolean mask; shape R.
        """
        by = self.norm or self.layer
        with torch.no_grad():
            for name in filter(None, (by.weight_name, by.bias_name)):
                model.get_parameter(name)[rows] = 0


def flow_on(model: nn.Module, data: Labelled) -> Flow:
    """The data flow of `model` for two images of `data`."""
    return flow_of(model, data.pick(torch.arange(2)).floats(device_of(model)))


def hidden_layers(model: nn.Module, flow: Flow) -> list[Hidden]:
    """The layers before the head whose weights are parameters with outputs first.

    Each layer comes once, in order of execution.

    Raises:
        MethodFailed: there is no head, or no such layer before it.
    """
    if flow.head is None:
        raise MethodFailed(
            "The network's last layer cannot be found, so neither can its neurons.", code="no_head"
        )
    own = dict(model.named_parameters())
    norms = {
        layer.follows: layer
        for layer in reversed(flow.layers)
        if layer.kind == "norm" and layer.follows is not None and layer.weight_name
    }
    found: dict[str, Hidden] = {}
    for position, layer in enumerate(flow.layers):
        stored = own.get(layer.weight_name)
        # A slice or a transposed view of a parameter has other rows than the parameter.
        if (
            layer.kind == "norm"
            or position == flow.head
            or stored is None
            or layer.weight is None
            or (stored.shape, stored.stride()) != (layer.weight.shape, layer.weight.stride())
        ):
            continue
        norm = norms.get(position)
        fits = (
            norm is not None and norm.weight is not None and norm.weight.shape == stored.shape[:1]
        )
        found.setdefault(layer.weight_name, Hidden(layer, norm if fits else None))
    found.pop(flow.layers[flow.head].weight_name, None)
    if not found:
        raise MethodFailed(
            "The network has no hidden layer whose weight is a parameter of its own, so no neurons "
            "that could be repaired.",
            code="no_neurons",
        )
    return list(found.values())


def lipschitz(layer: Layer, norm: Layer | None) -> Tensor:
    """Upper bound of each output channel's Lipschitz constant, float64 C on the CPU.

    The largest singular value of the filter, reshaped to inputs x positions (a linear row's
    length), times |gamma| / sqrt(var + eps) of a batch norm; other norms count with |gamma|.
    Source: Zheng et al., "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022.

    Args:
        layer: its weight has outputs first.
        norm: the norm that takes the layer's output, if there is one.
    """
    assert layer.weight is not None  # noqa: S101 - for mypy
    weight = layer.weight.detach().double().cpu()
    bounds = (
        torch.linalg.svdvals(weight.flatten(2))[:, 0] if weight.dim() > 2 else weight.norm(dim=1)
    )
    if norm is None:
        return bounds
    if norm.weight is not None and norm.weight.numel() == len(bounds):
        bounds = bounds * norm.weight.detach().double().cpu().abs()
    if norm.variance is not None and norm.variance.numel() == len(bounds):
        bounds = bounds / (norm.variance.detach().double().cpu() + norm.epsilon).sqrt()
    return bounds


def furthest(
    model: nn.Module, cuts: Sequence[Cut], clean: CleanSet, *, least: float, progress: Progress
) -> tuple[nn.Module, int]:
    """Apply `cuts` one after another for as long as the calibration accuracy is at least `least`.

    Returns:
        The model with the cuts that were allowed, and their number.
    """
    kept = model
    for index, cut in enumerate(cuts):
        candidate = copy.deepcopy(kept)
        cut(candidate)
        now = accuracy(candidate, clean.calibration, clean.classes).overall
        progress((index + 1) / len(cuts), f"pruning, step {index + 1} of {len(cuts)}")
        if now < least:
            return kept, index
        kept = candidate
    return kept, len(cuts)
