"""Random images and grids from which the trigger families make T triggers, one per row."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from guard.ml.upsampling import drawn_out_to

STRONG = 5.0  # times the scale of a fresh draw: tanh is then nearly saturated
GRAINS = (
    1,
    4,
    None,
)  # points a side of random images: one colour, smooth, and each pixel independent


def random_images(rows: int, shape: Sequence[int]) -> Tensor:
    """Random images of several grains in turn, then their opposites; float `rows`,C,H,W.

    The values are so large that tanh and sigmoid of them are nearly saturated.
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
    """Interpolate a float grid T,C,k,l, which may have fewer points than the image, to T,C,H,W."""
    if raw.shape[-2:] == tuple(shape[-2:]):
        return raw
    return drawn_out_to(raw, *shape[-2:], mode="bilinear", corners=False)


def wide(level: Tensor, dimensions: int) -> Tensor:
    """Reshape a float T to T,1,1,... with `dimensions` dimensions, for broadcasting."""
    return level.view(-1, *[1] * (dimensions - 1))


def half(rows: int) -> int:
    """The number of plus-minus pairs in `rows`.

    Raises:
        ValueError: `rows` is odd.
    """
    if rows % 2:
        raise ValueError(f"{rows} controls cannot be plus-minus pairs; use an even number.")
    return rows // 2


def and_opposites(raw: Tensor) -> Tensor:
    """The rows of a float T,..., then each with its sign reversed; shape 2T,..."""
    return torch.cat((raw, -raw))
