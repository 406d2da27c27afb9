"""Find the last layer of a network, and refit it from what clean images show of it.

A backdoored class's row of the head is large in directions that clean images hardly use (Fields
et al., "Trojan Signatures in DNN Weights", ICCVW 2021). Clean images carry no information about
these directions, so fine-tuning leaves them as they are; a head that is fitted from zero with a
penalty on its weights has none of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.networks.dataflow import Layer, flow_of

PASSES = 300  # of L-BFGS; the problem is convex
SAME = 1e-2  # how near features times weights must come to the logits, as a share of the largest

Head = tuple[nn.Parameter, nn.Parameter | None]


def head_of(model: nn.Module, clean: CleanSet, *, method: str) -> Head:
    """Weight K,D (K,D,1,1 of a convolution) and bias K of the layer that returns the logits.

    Args:
        model: takes float images N,C,H,W in [0, 1].
        clean: two of its search images are run.
        method: the method's name as it appears in an error message.

    Raises:
        MethodFailed: `no_head`: there is none, or its weight is not a parameter of the model.
    """
    found = layer_of(model, clean)
    if found is None:
        raise MethodFailed(
            f"{method} finds no last linear layer with one output a class; this architecture has "
            "no classifier that it could replace.",
            code="no_head",
        )
    return found[1]


def layer_of(model: nn.Module, clean: CleanSet) -> tuple[Layer, Head] | None:
    """The head as a call of the forward pass, with its parameters (shapes as in `head_of`).

    None if its weight is not a parameter of the model.
    """
    flow = flow_of(model, clean.search.pick(torch.arange(2)).floats(device_of(model)))
    parameters = dict(model.named_parameters())
    layer = flow.layers[flow.head] if flow.head is not None else None
    if layer is None or layer.weight_name not in parameters:
        return None
    return layer, (parameters[layer.weight_name], parameters.get(layer.bias_name))


def refit(
    head: Head,
    features: Tensor,
    logits: Tensor,
    decay: float,
    watch: Callable[[], None] = lambda: None,
) -> bool:
    """Replace the head by the one that gives these logits' probabilities with the least weights.

    Minimises cross-entropy + decay / 2 * v * |W|^2 from W = 0, with v the mean variance of a
    feature; the bias is free. It is computed in float64 on the CPU, so the result is the same on
    every machine up to rounding.

    Args:
        head: weight and bias, changed in place.
        features: input of the head, float N,D.
        logits: output of the head, float N,K.
        decay: larger than 0.
        watch: called at each step; an exception from it ends the fit, and nothing is changed.

    Returns:
        False, and nothing is changed, if the logits are not features times weights plus bias: then
        another operation follows the head.

    Raises:
        MethodFailed: `non_finite`.
    """
    weight, bias = head
    seen, given = (tensor.detach().double().cpu() for tensor in (features, logits))
    rows = weight.detach().double().cpu().flatten(1)
    offset = torch.zeros(len(rows)) if bias is None else bias.detach().double().cpu()
    if rows.shape[1] != seen.shape[1] or float(
        (seen @ rows.T + offset - given).abs().max()
    ) > SAME * float(given.abs().max()):
        return False
    wanted, cost = softmax(given, 1), 0.5 * decay * float(seen.var(0).mean())
    fresh = torch.zeros_like(rows).requires_grad_()
    shift = torch.zeros(len(rows), dtype=torch.float64).requires_grad_(bias is not None)
    free = [fresh] if bias is None else [fresh, shift]
    solver = torch.optim.LBFGS(
        free, max_iter=PASSES, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        watch()
        solver.zero_grad()
        with torch.enable_grad():
            value = cross_entropy(seen @ fresh.T + shift, wanted) + cost * fresh.square().sum()
            value.backward()
        return value

    solver.step(loss)
    if not bool(torch.isfinite(fresh).all() and torch.isfinite(shift).all()):
        raise MethodFailed(
            "The last layer could not be fitted: its features or logits are not finite.",
            code="non_finite",
        )
    with torch.no_grad():
        weight.copy_(fresh.view_as(weight))
        if bias is not None:
            bias.copy_(shift)
    return True
