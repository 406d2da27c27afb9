"""A change of colour and tone, with few parameters (filter triggers.

As in NIST's TrojAI rounds).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored

MOST_GAIN, MOST_OFFSET, GAMMA = 8.0, 1.0, (0.125, 8.0)
LEAST_VALUE = 1 / 512  # half a grey step: the slope of x ** g at 0 would be infinite


@dataclass(frozen=True)
class FilterTrigger:
    """x' = clip(A x^g + b), the same at every pixel.

    Args:
        matrix: A, float C,C within -8..8; how channels mix.
        offset: b, float C within -1..1.
        gamma: g, float C within 1/8..8.

    Raises:
        InputError: the shapes do not fit, or a value is not finite or out of range.
    """

    matrix: Tensor
    offset: Tensor
    gamma: Tensor
    family: ClassVar[str] = str(Family.FILTER)

    def __post_init__(self) -> None:
        channels = self.offset.shape[0] if self.offset.dim() == 1 else 1
        shaped("filter", "offset", self.offset, channels)
        shaped("filter", "matrix", self.matrix, channels, channels)
        shaped("filter", "gamma", self.gamma, channels)
        bounded("filter", "matrix", self.matrix, -MOST_GAIN, MOST_GAIN)
        bounded("filter", "offset", self.offset, -MOST_OFFSET, MOST_OFFSET)
        bounded("filter", "gamma", self.gamma, *GAMMA)

    def apply(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1], any device), filtered; a new tensor in [0, 1]."""
        matrix, offset, gamma = (
            part.to(images)[None] for part in (self.matrix, self.offset, self.gamma)
        )
        return filtered(images, matrix, offset, gamma)[0]

    @property
    def norm(self) -> float:
        """The largest departure from doing nothing.

        Of A from the identity, of b from 0, of half of log g from 0.
        """
        identity = self.matrix.new_zeros(self.matrix.shape).fill_diagonal_(1)
        parts = (
            (self.matrix - identity).abs().max(),
            self.offset.abs().max(),
            self.gamma.log().abs().max() / 2,
        )
        return max(float(part) for part in parts)

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(matrix=self.matrix, offset=self.offset, gamma=self.gamma)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "FilterTrigger":
        """The inverse of `to_tensors`.

        InputError where a tensor is missing, foreign or out of range.
        """
        return cls(*exactly("filter", ("matrix", "offset", "gamma"), tensors))


def filtered(images: Tensor, matrices: Tensor, offsets: Tensor, gammas: Tensor) -> Tensor:
    """T,N,C,H,W: the images N,C,H,W under each of T filters (T,C,C; T,C; T,C).

    Differentiable in all three.
    """
    curve = images.clamp(min=LEAST_VALUE)[None] ** gammas[:, None, :, None, None]
    mixed = (matrices[:, None] @ curve.flatten(3)).view_as(curve)
    return (mixed + offsets[:, None, :, None, None]).clamp(0, 1)
