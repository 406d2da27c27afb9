"""A trigger that a small network generates for each image (as Input-aware, SSBA, LIRA, Bpp).

The network is a UNet with one downsampling step. Its layers are fixed here; a stored trigger holds
only their weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored

MOST_WEIGHT = 1e4
MOST_WIDTH = 256
NAMES = ("epsilon", "enter", "down", "middle", "leave")


@dataclass(frozen=True)
class GeneratorTrigger:
    """A trigger that adds a change computed from the image, x' = clip(x + e tanh(G(x))).

    G: 3x3 convolutions `enter` (C to w), `down` (stride 2, w to 2w), `middle` (2w to 2w) with ReLU;
    then upsampled, joined with the output of `enter`, and `leave` (3w to C). Each has a bias,
    stored as one more input channel whose middle weight counts.

    Args:
        epsilon: e, one float in [0, 1].
        enter, down, middle, leave: float outputs,inputs + 1,3,3.

    Raises:
        InputError: the shapes do not fit, or a value is not finite or out of range.
    """

    epsilon: Tensor
    enter: Tensor
    down: Tensor
    middle: Tensor
    leave: Tensor
    family: ClassVar[str] = str(Family.SAMPLE_SPECIFIC)

    def __post_init__(self) -> None:
        kind = "sample-specific"
        shaped(kind, "epsilon", self.epsilon)
        bounded(kind, "epsilon", self.epsilon, 0, 1)
        shaped(kind, "enter", self.enter, None, None, 3, 3)
        width, channels = min(self.enter.shape[0], MOST_WIDTH), max(self.enter.shape[1] - 1, 1)
        for name, shape in layers(channels, width).items():
            shaped(kind, name, getattr(self, name), *shape)
            bounded(kind, name, getattr(self, name), -MOST_WEIGHT, MOST_WEIGHT)

    def apply(self, images: Tensor) -> Tensor:
        """Copies of `images` (float N,C,H,W in [0, 1], any device), each with its own trigger."""
        weights = [
            layer.to(images)[None] for layer in (self.enter, self.down, self.middle, self.leave)
        ]
        return generated(images, self.epsilon.to(images), weights)[0]

    @property
    def norm(self) -> float:
        """The largest possible change of a pixel value, where the range is 0..1."""
        return float(self.epsilon)

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(**{name: getattr(self, name) for name in NAMES})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "GeneratorTrigger":
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("sample-specific", NAMES, tensors))


def layers(channels: int, width: int) -> dict[str, tuple[int, int, int, int]]:
    """The shapes of G's weights for images of `channels`, by name."""
    return {
        "enter": (width, channels + 1, 3, 3),
        "down": (2 * width, width + 1, 3, 3),
        "middle": (2 * width, 2 * width + 1, 3, 3),
        "leave": (channels, 3 * width + 1, 3, 3),
    }


def generated(images: Tensor, epsilon: Tensor | float, weights: Sequence[Tensor]) -> Tensor:
    """Apply each of T generators to the float images N,C,H,W; float T,N,C,H,W in [0, 1].

    `weights` are the four of `GeneratorTrigger` with T in front. Differentiable.
    """
    enter, down, middle, leave = weights
    count, rows = len(images), len(enter)
    inputs = images[:, None].expand(-1, rows, -1, -1, -1)
    first = _convolved(inputs, enter).relu()
    low = _convolved(_convolved(first, down, stride=2).relu(), middle).relu()
    up = functional.interpolate(low.flatten(0, 1), scale_factor=2, mode="nearest")[
        ..., : images.shape[2], : images.shape[3]
    ]
    joined = torch.cat((first, up.view(count, rows, -1, *images.shape[2:])), dim=2)
    change = epsilon * _convolved(joined, leave).tanh()
    return (images[:, None] + change).clamp(0, 1).transpose(0, 1)


def _convolved(inputs: Tensor, weights: Tensor, stride: int = 1) -> Tensor:
    """Inputs N,T,I,H,W through T own 3x3 convolutions T,O,I+1,3,3, as one grouped convolution."""
    rows, outputs = weights.shape[:2]
    bias = weights[:, :, -1, 1, 1].flatten()
    kernels = weights[:, :, :-1].flatten(0, 1)
    found = functional.conv2d(
        inputs.flatten(1, 2), kernels, bias, stride=stride, padding=1, groups=rows
    )
    return found.unflatten(1, (rows, outputs))
