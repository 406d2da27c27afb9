"""Gradients at perturbed weights, which SAM and penalties on the gradient's norm have in common."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

#: From weights and their gradients, by name, to the ascent step of each weight, of its shape.
Ascent = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]


def uphill(
    model: nn.Module, images: Tensor, labels: Tensor, ascent: Ascent, *, share: float
) -> Tensor:
    """A scalar loss whose gradient is (1 - share) grad L(w) + share grad L(w + e).

    L is the mean cross-entropy, and e = ascent(w, grad L(w)) is held fixed. The value is the same
    mixture of L(w) and L(w + e). The first graph is freed before the second is built, so the memory
    is that of one plain step and a copy of the weights. Buffers (batch-norm statistics) are updated
    at w only.

    Args:
        model: returns logits N,K.
        images: float N,C,H,W in [0, 1] on the model's device.
        labels: int64 N.
        ascent: gives e.
        share: 0..1.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    here = cross_entropy(model(images), labels)
    # Zeros for a weight that the output does not depend on.
    found = torch.autograd.grad(
        here, list(weights.values()), allow_unused=True, materialize_grads=True
    )
    gradients = dict(zip(weights, found, strict=True))
    with torch.no_grad():
        shifts = ascent(weights, gradients)
    moved = {name: weight + shifts[name] for name, weight in weights.items()}
    spare = {name: buffer.clone() for name, buffer in model.named_buffers()}
    there = cross_entropy(functional_call(model, {**moved, **spare}, (images,)), labels)
    if share == 1:
        return there
    # Linear in the weights with the first gradient as its slope; its value is subtracted again.
    linear = torch.stack(
        [(gradients[name] * weight).sum() for name, weight in weights.items()]
    ).sum()
    return share * there + (1 - share) * (here.detach() + linear - linear.detach())
