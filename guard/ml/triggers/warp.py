"""A slight bending of the image by a coarse flow (WaNet: Nguyen & Tran, ICLR 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored
from guard.ml.upsampling import drawn_out_to

MOST_SHIFT = 64.0  # pixels; a flow that moves more makes another image, not a trigger
MOST_POINTS = 64


@dataclass(frozen=True)
class WarpTrigger:
    """A trigger that fetches each pixel from where a smooth flow points; edges repeat.

    Args:
        flow: float 2,k,k, pixels to the right and down at k x k points, 2 <= k <= 64, within
            -64..64; between the points it is bicubic, with the outer points on the image's edges.

    Raises:
        InputError: the shape does not fit, or a value is not finite or out of range.
    """

    flow: Tensor
    family: ClassVar[str] = str(Family.WARP)

    def __post_init__(self) -> None:
        side = min(max(self.flow.shape[-1], 2), MOST_POINTS) if self.flow.dim() else 2
        shaped("warp", "flow", self.flow, 2, side, side)
        bounded("warp", "flow", self.flow, -MOST_SHIFT, MOST_SHIFT)

    def apply(self, images: Tensor) -> Tensor:
        """Warped copies of `images` (float N,C,H,W in [0, 1], any device), in [0, 1]."""
        return warped(images, self.flow.to(images)[None])[0]

    @property
    def norm(self) -> float:
        """The largest shift at a point of the flow, in pixels along one axis."""
        return float(self.flow.abs().max())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(flow=self.flow)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "WarpTrigger":
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("warp", ("flow",), tensors))


def warped(images: Tensor, flows: Tensor) -> Tensor:
    """Warp the float images N,C,H,W with each of the flows T,2,k,k to T,N,C,H,W.

    Differentiable in `flows`, which are those of `WarpTrigger`. All N images of a flow are sampled
    at once, as channels.
    """
    count, channels, height, width = images.shape
    stacked = images.reshape(1, count * channels, height, width).expand(len(flows), -1, -1, -1)
    return each_warped(stacked, flows).view(len(flows), count, channels, height, width)


def each_warped(images: Tensor, flows: Tensor) -> Tensor:
    """Warp each of the float images N,C,H,W with its own flow of N,2,k,k, as `WarpTrigger` does."""
    height, width = images.shape[-2:]
    wide = drawn_out_to(flows, height, width, mode="bicubic", corners=True)  # T,2,H,W in pixels
    unit = flows.new_tensor(
        [2 / max(width - 1, 1), 2 / max(height - 1, 1)]
    )  # of grid_sample, where a side is 2 long
    across = torch.linspace(-1, 1, width, device=flows.device, dtype=flows.dtype).expand(
        height, width
    )
    down = torch.linspace(-1, 1, height, device=flows.device, dtype=flows.dtype)[:, None].expand(
        height, width
    )
    grid = torch.stack((across, down), dim=-1) + wide.movedim(1, -1) * unit
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
