"""Random pictures and grids that the trigger families draw with; T triggers are T rows."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from guard.ml.upsampling import drawn_out_to

STRONG = 5.0  # times the scale of a fresh draw: tanh is then near its ends
GRAINS = (
    1,
    4,
    None,
)  # points a side of random pictures: one colour, smooth, and each pixel for itself


def pictures(rows: int, shape: Sequence[int]) -> Tensor:
    """Random pictures of several grains in turn, then their opposites.

    For tanh or sigmoid to be near their ends.
    """
    channels, height, width = shape
    found = []
    for row in range(half(rows)):
        grain = GRAINS[row % len(GRAINS)]
        if grain is None:
            found.append(torch.randn(1, *shape))
            continue
        coarse = torch.randn(1, channels, grain, grain)
        found.append(
            functional.interpolate(
                coarse, size=(height, width), mode="bilinear", align_corners=False
            )
        )
    return STRONG * and_opposites(torch.cat(found))


def drawn_out(raw: Tensor, shape: Sequence[int]) -> Tensor:
    """T,C,H,W of a grid that may have fewer points than the image."""
    if raw.shape[-2:] == tuple(shape[-2:]):
        return raw
    return drawn_out_to(raw, *shape[-2:], mode="bilinear", corners=False)


def wide(level: Tensor, dimensions: int) -> Tensor:
    """T as T,1,1,..."""
    return level.view(-1, *[1] * (dimensions - 1))


def half(rows: int) -> int:
    """Of how many triggers opposites make `rows`; ValueError if `rows` is odd."""
    if rows % 2:
        raise ValueError(f"{rows} controls cannot be pairs of opposites.")
    return rows // 2


def and_opposites(raw: Tensor) -> Tensor:
    """The rows, then each with its sign turned."""
    return torch.cat((raw, -raw))
