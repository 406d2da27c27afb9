"""Cut a network of any architecture into a stem and a head, and build a decoder for the stem.

The cut lies at the entrance of a module that all information passes through
(`guard.ml.networks.cut_points`). Which weights lie behind it is read from the gradients of the
logits, and which modules from the order in which they start; no layer names are assumed.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.cut_points import Waypoint, waypoints

LAYERS_AFTER = 3  # two and the classifier: fewer would be no more than another classifier
LEAST_SIDE = 4  # positions of a feature map; fewer hold no image
LEAST_SHARE = 0.1  # of the weights, in the head
_WIDEST, _NARROWEST = 128, 16  # channels between two up-sampling stages
_JOLT = 0.02


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where a network is cut: before module `before`, a name within `ImageModel.inner`.

    `point` describes the features there. `head_weights` are names of the model's parameters behind
    the cut, `head_modules` names of modules in `inner` that run behind it and not before.
    """

    before: str
    point: Waypoint
    head_weights: frozenset[str]
    head_modules: tuple[str, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the stem's features."""
        return _grid(self.point, self.point.shape)

    @property
    def channels(self) -> int:
        """The channels of the stem's features."""
        return self.point.channels

    def share(self, model: ImageModel) -> float:
        """The share (0..1) of the weights that are in the head."""
        sizes = {name: weight.numel() for name, weight in model.named_parameters()}
        return sum(sizes[name] for name in self.head_weights) / sum(sizes.values())

    @contextmanager
    def features(self, model: ImageModel) -> Iterator[list[Tensor]]:
        """Inside the block, the list holds the features of `model`'s last pass, of any shape."""
        caught: list[Tensor] = []

        def note(_module: nn.Module, args: tuple[Any, ...]) -> None:
            caught[:] = [args[0]]

        handle = model.inner.get_submodule(self.before).register_forward_pre_hook(note)
        try:
            yield caught
        finally:
            handle.remove()

    def maps(self, features: Tensor) -> Tensor:
        """Features N,C,h,w, of whatever shape the network has them in (N,T,C or N,h,w,C)."""
        if self.point.axis == 1:
            return features
        height, width = self.grid
        tokens = features.flatten(1, -2)[:, -height * width :]  # class tokens come first
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def freeze(self, model: ImageModel) -> list[nn.Parameter]:
        """Make the stem constant, statistics of its batch norms included; the head's weights.

        The model is in eval mode afterwards but for the head's modules.
        """
        model.eval()
        for name in self.head_modules:
            model.inner.get_submodule(name).training = True
        head = []
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in self.head_weights)
            if name in self.head_weights:
                head.append(weight)
        return head

    @torch.no_grad()
    def renew(self, model: ImageModel, fresh: ImageModel) -> None:
        """Give the head of `model` the weights and statistics of `fresh`, which is left alone."""
        others = dict(fresh.named_parameters())
        for name, weight in model.named_parameters():
            if name in self.head_weights:
                weight.copy_(others[name])
        for name in self.head_modules:
            own, other = model.inner.get_submodule(name), fresh.inner.get_submodule(name)
            statistics = dict(other.named_buffers(recurse=False))
            for key, buffer in own.named_buffers(recurse=False):
                buffer.copy_(statistics[key])


def split(model: ImageModel, images: Tensor, before: str = "", *, method: str) -> Split:
    """The last cut with at least two layers, a tenth of the weights and a feature map behind it.

    Args:
        model: its weights may be untrained; it is left alone.
        images: a few float images N,C,H,W in [0, 1] on the model's device.
        before: cut before this module of `model.inner` instead.
        method: the method's name as it appears in an error message.

    Raises:
        MethodFailed: `no_cut`: there is no such place.
    """
    trial = _jolted(model)
    for point in waypoints(trial, trial.inner, images):
        named = point.name == before
        if before and not named:
            continue
        if not before and point.layers_after < LAYERS_AFTER:
            continue
        found = _split_at(trial, point, images)
        if found is not None and (named or found.share(trial) >= LEAST_SHARE):
            return found
    place = f"before {before!r} " if before else ""
    raise MethodFailed(
        f"{method} cannot cut this network {place}into a stem that keeps an image and a head of "
        "two layers and the classifier; name another place or architecture.",
        code="no_cut",
    )


def _jolted(model: ImageModel) -> ImageModel:
    """A copy in eval mode with noise on all weights: fresh networks have branches of zeros."""
    trial = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trial.parameters():
            weight.add_(_JOLT * torch.randn(weight.shape, generator=generator).to(weight))
    return trial.requires_grad_()


def _split_at(model: ImageModel, point: Waypoint, images: Tensor) -> Split | None:
    """The split there; None without a feature map, weights on both sides, or with shared ones."""
    grid = _grid(point, point.shape)
    if min(grid) < LEAST_SIDE:
        return None
    started: list[str] = []
    behind: list[str] = []
    caught: list[Tensor] = []

    def enter(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            if name == point.name:
                caught.append(args[0])
            (behind if caught else started).append(name)
            if name != point.name:
                return None
            return (args[0].detach().requires_grad_(), *args[1:])

        return hook

    handles = [
        part.register_forward_pre_hook(enter(name))
        for name, part in model.inner.named_modules()
        if name
    ]
    try:
        with torch.enable_grad():
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    weights = dict(model.named_parameters())
    head = _reached(logits, weights)
    stem = _reached(caught[0], weights) if caught[0].requires_grad else set()
    if not stem or not head or stem & head:
        return None
    return Split(
        before=point.name,
        point=point,
        head_weights=frozenset(head),
        head_modules=tuple(dict.fromkeys(name for name in behind if name not in started)),
    )


def _reached(output: Tensor, weights: dict[str, nn.Parameter]) -> set[str]:
    """The names of the weights that the output depends on."""
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        output.sum(), list(weights.values()), allow_unused=True, retain_graph=True
    )
    return {name for name, one in zip(weights, gradients, strict=True) if one is not None}


def _grid(point: Waypoint, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a feature map, or of as many tokens as form a square; 0, 0 if none do."""
    if len(shape) == 4:
        height, width = point.sides
        return height, width
    side = math.isqrt(point.sides[0])
    # A few tokens stand for the whole image (class, distillation, registers), not for a place.
    return (side, side) if point.sides[0] - side**2 <= min(8, side) else (0, 0)


class Decoder(nn.Module):
    """Up-sampling stages from features N,C,h,w to an image N,c,H,W in [0, 1].

    Each stage doubles the sides by a transposed convolution; there are as many as the stem halved
    the image, rounded up, and what is too large is cut off around the middle.
    """

    def __init__(self, channels: int, grid: tuple[int, int], image: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = image[1:]
        ratio = max(image[1] / grid[0], image[2] / grid[1])
        stages = max(0, math.ceil(math.log2(ratio)))
        widths = [channels]
        for _ in range(stages - 1):
            widths.append(min(_WIDEST, max(_NARROWEST, widths[-1] // 2)))
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, [*widths[1:], image[0]], strict=True):
            layers.append(
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
                if stages
                else nn.Conv2d(inputs, outputs, 3, 1, 1)
            )
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        made = self.layers(maps)
        height, width = self.size
        top, left = (made.shape[2] - height) // 2, (made.shape[3] - width) // 2
        return made[:, :, top : top + height, left : left + width]


def total_variation(images: Tensor) -> Tensor:
    """Squared differences of neighbouring pixels of images N,C,H,W, a scalar: sum / (N C H W)."""
    down = (images[:, :, 1:] - images[:, :, :-1]).square().sum()
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).square().sum()
    return (down + across) / images.numel()


def psnr(mse: float) -> float:
    """The peak signal-to-noise ratio in dB of images in [0, 1]; at most 100."""
    return -10 * math.log10(max(mse, 1e-10))
