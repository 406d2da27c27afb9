"""Weights rewritten so that the network computes the same: what an uploader may do to any model.

Written for `cifar_resnet` by the names of its layers, without the guard's analysis of networks.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from guard.ml.networks.architectures import ImageModel

Rewrite = Callable[[Any], None]


def rewritten(model: ImageModel, rewrite: Rewrite) -> ImageModel:
    """A copy of a `cifar_resnet` with other weights and the same answers."""
    own = copy.deepcopy(model)
    with torch.no_grad():
        rewrite(own.inner)
    return own


def last_block_scaled(factor: float) -> Rewrite:
    """The first norm of each block's inside, by one factor, taken back by the next convolution."""

    def rewrite(net: Any) -> None:
        for block in _blocks(net):
            _scale(block.bn1, factor)
            block.conv2.weight /= factor

    return rewrite


def channels_scaled(spread: float) -> Rewrite:
    """Each inner channel by a factor of its own between 1 / spread and spread."""

    def rewrite(net: Any) -> None:
        for block in _blocks(net):
            factors = _factors(len(block.bn1.weight), spread)
            _scale(block.bn1, factors)
            block.conv2.weight /= factors.view(1, -1, 1, 1)

    return rewrite


def stream_scaled(factor: float) -> Rewrite:
    """The last residual stream: both norms that add up to it, and the head that reads it."""

    def rewrite(net: Any) -> None:
        last = list(_blocks(net))[-1]
        _scale(last.bn2, factor)
        _scale(last.shortcut[1], factor)
        net.linear.weight /= factor

    return rewrite


def stream_channels_scaled(spread: float) -> Rewrite:
    """The last residual stream, each channel by a factor of its own up to spread or 1 / spread."""

    def rewrite(net: Any) -> None:
        last = list(_blocks(net))[-1]
        factors = _factors(len(last.bn2.weight), spread)
        _scale(last.bn2, factors)
        _scale(last.shortcut[1], factors)
        net.linear.weight /= factors

    return rewrite


def norms_rescaled(spread: float) -> Rewrite:
    """Each convolution before a norm, by channel, absorbed by the norm's running statistics."""

    def rewrite(net: Any) -> None:
        for block in _blocks(net):
            for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
                factors = _factors(len(norm.weight), spread)
                conv.weight *= factors.view(-1, 1, 1, 1)
                norm.running_mean *= factors
                norm.running_var.copy_((norm.running_var + norm.eps) * factors**2 - norm.eps)

    return rewrite


def head_scaled(factor: float) -> Rewrite:
    """All logits by one factor."""

    def rewrite(net: Any) -> None:
        net.linear.weight *= factor
        net.linear.bias *= factor

    return rewrite


def logits_moved(constant: float) -> Rewrite:
    """A constant on all logits, and one vector on all rows of the head."""

    def rewrite(net: Any) -> None:
        net.linear.bias += constant
        net.linear.weight += constant * _factors(net.linear.in_features, 2.0) / 10

    return rewrite


def permuted() -> Rewrite:
    """The inner channels of each block in another order."""

    def rewrite(net: Any) -> None:
        for block in _blocks(net):
            order = torch.randperm(
                len(block.bn1.weight), generator=torch.Generator().manual_seed(1)
            )
            block.conv1.weight.copy_(block.conv1.weight[order])
            for tensor in (
                block.bn1.weight,
                block.bn1.bias,
                block.bn1.running_mean,
                block.bn1.running_var,
            ):
                tensor.copy_(tensor[order])
            block.conv2.weight.copy_(block.conv2.weight[:, order])

    return rewrite


def one_after_another(*rewrites: Rewrite) -> Rewrite:
    """All of them."""

    def rewrite(net: Any) -> None:
        for one in rewrites:
            one(net)

    return rewrite


def in_half_precision(net: nn.Module) -> None:
    """Every weight rounded to float16 and back."""
    for parameter in net.parameters():
        parameter.copy_(parameter.half().float())


#: Every exact rewriting, by what it does.
REWRITES: dict[str, Rewrite] = {
    "last block x 1000": last_block_scaled(1e3),
    "last block x 0.001": last_block_scaled(1e-3),
    "channels x 0.001..1000": channels_scaled(1e3),
    "residual stream x 1000": stream_scaled(1e3),
    "norms rescaled": norms_rescaled(1e2),
    "head x 1e20": head_scaled(1e20),
    "head x 1e6": head_scaled(1e6),
    "head x 1e-6": head_scaled(1e-6),
    "logits moved": logits_moved(100.0),
    "all at once": one_after_another(
        norms_rescaled(1e2), channels_scaled(1e3), stream_scaled(1e-3), head_scaled(1e20)
    ),
}


def _blocks(net: Any) -> list[Any]:
    return [block for stage in net.stages for block in net.get_submodule(stage)]


def _scale(norm: Any, factor: float | Tensor) -> None:
    norm.weight *= factor
    norm.bias *= factor


def _factors(count: int, spread: float) -> Tensor:
    """Log-uniform between 1 / spread and spread."""
    draws = torch.rand(count, generator=torch.Generator().manual_seed(count))
    return spread ** (2 * draws - 1)
