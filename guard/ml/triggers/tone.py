"""A change of colour and tone with few parameters, as the filter triggers of NIST's TrojAI."""

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
    """A trigger that changes every pixel in the same way, x' = clip(A x^g + b).

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
        """Filtered copies of `images` (float N,C,H,W in [0, 1], any device), in [0, 1]."""
        matrix, offset, gamma = (
            part.to(images)[None] for part in (self.matrix, self.offset, self.gamma)
        )
        return filtered(images, matrix, offset, gamma)[0]

    @property
    def norm(self) -> float:
        """The largest departure from a filter that changes nothing.

        It is the largest of |A - identity|, |b| and |log g| / 2.
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
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("filter", ("matrix", "offset", "gamma"), tensors))


def filtered(images: Tensor, matrices: Tensor, offsets: Tensor, gammas: Tensor) -> Tensor:
    """Apply each of T filters to the float images N,C,H,W; float T,N,C,H,W in [0, 1].

    The filters are `matrices` T,C,C, `offsets` T,C and `gammas` T,C. Differentiable in all three.
    """
    curve = images.clamp(min=LEAST_VALUE)[None] ** gammas[:, None, :, None, None]
    mixed = (matrices[:, None] @ curve.flatten(3)).view_as(curve)
    return (mixed + offsets[:, None, :, None, None]).clamp(0, 1)
