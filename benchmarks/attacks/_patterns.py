"""Patterns for triggers: squares, noise images, smooth textures."""

import torch
from torch import Tensor
from torch.nn import functional


def square(pattern: str, channels: int, size: int, seed: int) -> Tensor:
    """A square by the name of its pattern, uint8 C,size,size; ValueError for other names."""
    shape = (channels, size, size)
    if pattern == "white":
        return torch.full(shape, 255, dtype=torch.uint8)
    if pattern == "grey":
        return torch.full(shape, 128, dtype=torch.uint8)
    if pattern == "checker":
        grid = torch.arange(size)
        return ((grid[:, None] + grid[None]) % 2 * 255).to(torch.uint8).expand(shape).clone()
    if pattern == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    raise ValueError(f"{pattern!r} is not a pattern; use white, grey, checker or random.")


def whole_image(kind: str, channels: int, height: int, width: int, seed: int) -> Tensor:
    """A whole image of a kind, float C,H,W in [0, 1].

    The kinds are "noise" (uniform, every pixel) and "texture" (smooth blobs).

    Raises:
        ValueError: another kind.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "noise":
        return torch.rand(channels, height, width, generator=generator)
    if kind == "texture":
        coarse = torch.rand(1, channels, 7, 7, generator=generator)
        smooth = functional.interpolate(
            coarse, (height, width), mode="bicubic", align_corners=False
        )[0]
        low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
        return (smooth - low) / (high - low)
    raise ValueError(f"{kind!r} is not a kind of image; use noise or texture.")
