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
    bias = head[1]
    seen, given = (tensor.detach().double().cpu() for tensor in (features, logits))
    if not _is_linear(head, seen, given):
        return False
    wanted, cost = softmax(given, 1), 0.5 * decay * float(seen.var(0).mean())

    def loss(rows: Tensor, shift: Tensor) -> Tensor:
        watch()
        return cross_entropy(seen @ rows.T + shift, wanted) + cost * rows.square().sum()

    _put(head, *_minimised(loss, given.shape[1], seen.shape[1], free_bias=bias is not None))
    return True


#: Features N,D and logits N,K of the same images, and their labels int64 N.
Seen = tuple[Tensor, Tensor, Tensor]


def fit_against(
    head: Head,
    clean: Seen,
    poisoned: Seen,
    *,
    against: float,
    decay: float,
    watch: Callable[[], None] = lambda: None,
) -> bool:
    """Replace the head by the one that is best on clean images and bad on poisoned ones.

    Minimises CE(clean) - against * CE(poisoned) + decay / 2 * v * |W|^2 from W = 0, in float64 on
    the CPU; v is the mean variance of a clean feature, the bias is free. The penalty grows faster
    than the poisoned images' term falls. Without poisoned images there is no such term.

    Args:
        head: weight and bias, changed in place.
        clean: features float N,D, logits float N,K as the head gives them now, labels int64 N.
        poisoned: the same, of any number of images, none included.
        against: 0 or larger.
        decay: larger than 0.
        watch: as in `refit`.

    Returns:
        False, and nothing is changed, if another operation follows the head, as in `refit`.

    Raises:
        MethodFailed: `non_finite`.
    """
    features, logits, labels = (tensor.detach().cpu() for tensor in clean)
    seen = features.double()
    if not _is_linear(head, seen, logits.double()):
        return False
    cost = 0.5 * decay * float(seen.var(0).mean())
    bad, bad_labels = poisoned[0].detach().double().cpu(), poisoned[2].cpu()

    def loss(rows: Tensor, shift: Tensor) -> Tensor:
        watch()
        value = cross_entropy(seen @ rows.T + shift, labels) + cost * rows.square().sum()
        if len(bad):
            value = value - against * cross_entropy(bad @ rows.T + shift, bad_labels)
        return value

    bias = head[1] is not None
    _put(head, *_minimised(loss, logits.shape[1], seen.shape[1], free_bias=bias))
    return True


def _is_linear(head: Head, features: Tensor, logits: Tensor) -> bool:
    """Whether the logits N,K are features N,D times weights plus bias; all float64 on the CPU."""
    weight, bias = head
    rows = weight.detach().double().cpu().flatten(1)
    offset = torch.zeros(len(rows)) if bias is None else bias.detach().double().cpu()
    if rows.shape[1] != features.shape[1]:
        return False
    off = float((features @ rows.T + offset - logits).abs().max())
    # Not `<=`: what is not a number is for `_put` to refuse.
    return not off > SAME * float(logits.abs().max())


def _minimised(
    loss: Callable[[Tensor, Tensor], Tensor], classes: int, width: int, *, free_bias: bool
) -> tuple[Tensor, Tensor]:
    """Weight K,D and bias K with the least loss, from zero; the bias stays zero if not free."""
    fresh = torch.zeros(classes, width, dtype=torch.float64).requires_grad_()
    shift = torch.zeros(classes, dtype=torch.float64).requires_grad_(free_bias)
    solver = torch.optim.LBFGS(
        [fresh, shift] if free_bias else [fresh],
        max_iter=PASSES,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def step() -> Tensor:
        solver.zero_grad()
        with torch.enable_grad():
            value = loss(fresh, shift)
            value.backward()
        return value

    solver.step(step)
    return fresh, shift


@torch.no_grad()
def _put(head: Head, fresh: Tensor, shift: Tensor) -> None:
    if not bool(torch.isfinite(fresh).all() and torch.isfinite(shift).all()):
        raise MethodFailed(
            "The last layer could not be fitted: its features or logits are not finite.",
            code="non_finite",
        )
    weight, bias = head
    weight.copy_(fresh.view_as(weight))
    if bias is not None:
        bias.copy_(shift)
