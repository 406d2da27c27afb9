"""A neural polarizer as a module of the network: an affine map of the channels in front of one layer.

Source: Zhu et al., "Neural Polarizer", NeurIPS 2023, arXiv 2306.16697; the conditional form after its follow-up CNPD,
arXiv 2502.18520, whose embedding of the class is here a row of scales and shifts (the paper's own form is not known to
us). A published polarizer is a 1x1 convolution and a batch norm whose statistics are frozen; the two together are this
map. It starts as the identity, which the published one does not.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import ManifestRejected
from guard.core.manifest import PolarizerPlace


class Polarizer(nn.Module):
    """y = scale[k] * (W h) + shift[k] on the channels of feature maps N,C,H,W, or of anything with C in the last place.

    `weight` C,C; `scale` and `shift` R,C with one row, or one for each class if R > 1. Then k is the image's entry in
    `said` (int64 N), which `Conditioned` sets for one pass; while it is None, features go through as they are.
    """

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels))
        self.scale = nn.Parameter(torch.ones(rows, channels))
        self.shift = nn.Parameter(torch.zeros(rows, channels))
        self.said: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        rows, channels = self.scale.shape
        if rows > 1 and self.said is None:
            return features
        index = self.said if rows > 1 and self.said is not None else features.new_zeros(1, dtype=torch.int64)
        scale, shift = self.scale[index], self.shift[index]
        if features.dim() == 4 and features.shape[1] == channels:
            mapped = functional.conv2d(features, self.weight[:, :, None, None])
            return mapped * scale[:, :, None, None] + shift[:, :, None, None]
        between = [1] * (features.dim() - 2)
        mapped = functional.linear(features, self.weight)
        return mapped * scale.view(len(scale), *between, channels) + shift.view(len(shift), *between, channels)


class Polarized(nn.Module):
    """A layer with a polarizer in front of it, in the layer's place."""

    def __init__(self, layer: nn.Module, polarizer: Polarizer) -> None:
        super().__init__()
        self.polarizer = polarizer
        self.layer = layer

    def forward(self, features: Tensor, *args: object, **kwargs: object) -> object:
        return self.layer(self.polarizer(features), *args, **kwargs)


class Conditioned(nn.Module):
    """A network whose polarizer looks at what the network says without it; each answer takes two passes."""

    def __init__(self, network: nn.Module, before: str) -> None:
        super().__init__()
        self.network = network
        self.before = before

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            bare: Tensor = self.network(images)
        return self.told(images, bare.argmax(1))

    def told(self, images: Tensor, said: Tensor) -> Tensor:
        """Logits N,K where the polarizer is told the class of each image (int64 N)."""
        polarizer = polarizer_of(self)
        polarizer.said = said
        try:
            logits: Tensor = self.network(images)
        finally:
            polarizer.said = None
        return logits


def attach(network: nn.Module, place: PolarizerPlace, classes: int) -> nn.Module:
    """The network with a fresh polarizer at `place`; changed in place, and wrapped if it is conditional.

    Raises:
        ManifestRejected: `manifest_bad_polarizer`, there is no such layer.
    """
    parent_name, _, name = place.before.rpartition(".")
    try:
        parent = network.get_submodule(parent_name)
        layer = parent.get_submodule(name)
    except AttributeError as error:
        raise ManifestRejected(f"The network has no layer {place.before!r} to put a polarizer before; correct "
                               "guard.polarizer in config.json.", code="manifest_bad_polarizer") from error
    setattr(parent, name, Polarized(layer, Polarizer(place.channels, classes if place.conditional else 1)))
    return Conditioned(network, place.before) if place.conditional else network


def polarizer_of(model: nn.Module) -> Polarizer:
    """The polarizer inside a model.

    Raises:
        LookupError: there is none.
    """
    for module in model.modules():
        if isinstance(module, Polarizer):
            return module
    raise LookupError("The model has no polarizer.")
