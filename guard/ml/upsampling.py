"""Interpolate coarse grids to the size of an image by a product with two small matrices.

Unlike CUDA's own interpolation, whose gradients are summed in an arbitrary order, the result is the
same on every run.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def drawn_out_to(
    grids: Tensor, height: int, width: int, *, mode: Literal["bilinear", "bicubic"], corners: bool
) -> Tensor:
    """Interpolate float grids T,C,k,l to T,C,`height`,`width`; differentiable.

    Args:
        grids: the values at the grid points, in any unit.
        height, width: in pixels.
        mode: the interpolation.
        corners: whether the outer grid points lie on the image's edges.
    """
    rows, columns = (
        _matrix(points, side, mode=mode, corners=corners).to(grids)
        for points, side in zip(grids.shape[-2:], (height, width), strict=True)
    )
    return rows @ grids @ columns.T


def _matrix(points: int, side: int, *, mode: str, corners: bool) -> Tensor:
    """The matrix (side, points) that interpolates values at the points."""
    unit = torch.eye(points)[None, None]
    return functional.interpolate(unit, size=(side, points), mode=mode, align_corners=corners)[0, 0]
