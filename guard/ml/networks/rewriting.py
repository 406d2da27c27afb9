"""Other weights for the same function, as an attacker would choose them to blind a search.

Detectors must find in a rewritten model what they find in the plain one: the canary of a worker and
the benchmarks try them on the models that are made here. Every rewriting is proven on images.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.measure import evaluating
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.dataflow import flow_of

NORM = 1e3  # by which the channels of a norm grow, and the weights that read them shrink
HEAD = 1e20  # by which all logits grow: their squares overflow
SAME = 1e-3  # of the largest logit: how far one may move


def with_scaled_norm(model: ImageModel, images: Tensor, factor: float = NORM) -> ImageModel:
    """A copy in which the last norm before a convolution is scaled, and the convolution undoes it.

    Args:
        images: float N,C,H,W in [0, 1] on the model's device, on which the copy must give the same
            logits.

    Raises:
        MethodFailed: `no_head`: the network has no such pair of layers.
    """
    with torch.no_grad(), evaluating(model):
        given = model(images)
    names = {module: name for name, module in model.named_modules()}
    for norm, reader in reversed(list(_neighbours(model))):
        own = copy.deepcopy(model)
        parameters = dict(own.named_parameters())
        with torch.no_grad(), evaluating(own):
            parameters[f"{names[norm]}.weight"].mul_(factor)
            parameters[f"{names[norm]}.bias"].mul_(factor)
            parameters[f"{names[reader]}.weight"].div_(factor)
            if float((own(images) - given).abs().max()) <= SAME * float(given.abs().max()):
                return own
    raise MethodFailed(
        "The network has no norm that one convolution alone reads; choose another model.",
        code="no_head",
    )


def with_scaled_head(model: ImageModel, images: Tensor, factor: float = HEAD) -> ImageModel:
    """A copy whose last layer, and with it every logit, is `factor` times as large.

    Args:
        images: float N,C,H,W in [0, 1] on the model's device, from which the last layer is found.

    Raises:
        MethodFailed: `no_head`: the network's last layer cannot be found.
    """
    own = copy.deepcopy(model)
    flow = flow_of(own.eval(), images[:2])
    parameters = dict(own.named_parameters())
    head = None if flow.head is None else flow.layers[flow.head]
    if head is None or head.weight_name not in parameters:
        raise MethodFailed(
            "The network's last layer cannot be found; choose another model.", code="no_head"
        )
    with torch.no_grad():
        for name in filter(None, (head.weight_name, head.bias_name)):
            parameters[name].mul_(factor)
    return own


def _neighbours(model: nn.Module) -> Iterator[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """Each norm with the convolution that is registered next, where their channels fit."""
    last: nn.BatchNorm2d | None = None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            last = module
        elif isinstance(module, nn.Conv2d):
            if last is not None and last.affine and module.in_channels == last.num_features:
                yield last, module
            last = None
