"""A battery of changes to images that keep their content, drawn from a secret.

A backdoor's target class absorbs random changes in general, not the attacker's trigger alone
(`guard.ml.search.attraction`). Whoever trains a model with these very changes and true labels takes
that away; so they are drawn from a secret of the installation, of which others see no more than a
commitment (`secret_in_force`).

There are thirteen families with `EACH` changes each. Sizes in pixels are for images of 32 x 32 and
grow with the image. The battery is our own; it must resemble no known trigger exactly, and each
family is a kind of trigger somebody may choose.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guard.ml.triggers.blend import blended
from guard.ml.triggers.warp import warped

VERSION = 1  # raised with any change of what is drawn: results are cached and compared
EACH = 11  # changes a family
SIDE = 32  # of the images that the sizes are for
PUBLIC = b"a battery that anyone can draw"
#: Takes float images N,C,H,W in [0, 1] and returns as many of the same shape and range.
Change = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]
_source: ContextVar[Callable[[], bytes]] = ContextVar("_source", default=lambda: PUBLIC)


@contextmanager
def drawing_from(source: Callable[[], bytes]) -> Iterator[None]:
    """Inside the block, batteries are drawn from what `source` returns when one is needed."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def secret_in_force() -> bytes:
    """The secret that batteries are drawn from; it goes nowhere but into a child process.

    Outside every `drawing_from` it is `PUBLIC`, so that a canary and a benchmark are repeatable.
    """
    return _source.get()()


def commitment() -> str:
    """A hash that binds to the secret without revealing it, 64 hex digits."""
    return hashlib.sha256(b"registry-guard battery commitment\0" + secret_in_force()).hexdigest()


@dataclass(frozen=True)
class Draw:
    """Random parameters of changes for images of `shape` (C,H,W)."""

    generator: torch.Generator
    shape: Shape

    @property
    def pixel(self) -> float:
        """How many pixels of this image one of a 32 x 32 image is; 1 or more."""
        return max(1.0, min(self.shape[1:]) / SIDE)

    def between(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def either(self) -> float:
        """-1 or 1."""
        return float(2 * self.whole(0, 1) - 1)

    def uniform(self, *sides: int) -> Tensor:
        """Numbers in [0, 1], float of these sides."""
        return torch.rand(sides, generator=self.generator)

    def normal(self, *sides: int) -> Tensor:
        """Standard normal numbers, float of these sides."""
        return torch.randn(sides, generator=self.generator)


def battery(secret: bytes, shape: Shape, turn: int) -> dict[str, tuple[Change, ...]]:
    """The changes of each family by its name; the same for the same secret, shape and turn.

    Args:
        secret: what they are drawn from.
        shape: C,H,W of the images.
        turn: which of the secret's batteries.
    """
    found = {}
    for name, make in FAMILIES.items():
        seed = hashlib.sha256(f"{VERSION} {turn} {name} {shape} ".encode() + secret).digest()
        draw = Draw(torch.Generator().manual_seed(int.from_bytes(seed[:7], "big")), shape)
        found[name] = tuple(make(draw, place) for place in range(EACH))
    return found


def _patch(draw: Draw, place: int) -> Change:
    channels, height, width = draw.shape
    side = min(round((2 + place % 5) * draw.pixel), height, width)
    top, left = draw.whole(0, height - side), draw.whole(0, width - side)
    if place % 3 == 0:  # in a corner
        top, left = (height - side) * draw.whole(0, 1), (width - side) * draw.whole(0, 1)
    cells = (1, 2, side)[draw.whole(0, 2)]
    pattern = _grown(draw.uniform(1, channels, cells, cells).round(decimals=1), (side, side))

    def change(images: Tensor) -> Tensor:
        images = images.clone()
        images[..., top : top + side, left : left + side] = pattern.to(images)
        return images

    return change


def _blend(draw: Draw, place: int) -> Change:
    channels, height, width = draw.shape
    cells = (None, 8, 4)[place % 3]
    sides = (height, width) if cells is None else (cells, cells)
    image = _grown(draw.uniform(1, channels, *sides), (height, width))
    share = draw.between(0.1, 0.3)
    return lambda images: blended(images, torch.tensor(share).to(images), image.to(images)[0])


def _wave(draw: Draw, place: int) -> Change:
    _, height, width = draw.shape
    turn = draw.between(0, 2 * math.pi) if place % 2 else (place // 2 % 2) * math.pi / 2
    cycles, phase = draw.between(1, 12), draw.between(0, 2 * math.pi)
    down, across = (torch.arange(side) / side for side in (height, width))
    angle = cycles * (math.sin(turn) * down[:, None] + math.cos(turn) * across)
    return _adding(draw.between(0.06, 0.16) * (2 * math.pi * angle + phase).sin()[None])


def _low_frequencies(draw: Draw, place: int) -> Change:
    channels, height, width = draw.shape
    most = draw.whole(2, 4)
    down, across = (
        (math.pi * (torch.arange(side) + 0.5)[:, None] / side * torch.arange(most)).cos()
        for side in (height, width)
    )
    parts = draw.normal(channels if place % 4 < 2 else 1, most, most)
    parts[:, 0, 0] = 0
    image = down @ parts @ across.T
    return _adding((0.08, 0.15)[place % 2] * image / image.abs().max())


def _warp(draw: Draw, place: int) -> Change:
    points = draw.whole(3, 8)
    flow = draw.normal(1, 2, points, points)
    mean = draw.between(0.5, 2.5) * draw.pixel
    flow = flow / flow.square().sum(1).sqrt().mean() * mean
    del place
    return lambda images: warped(images, flow.to(images))[0]


def _affine(draw: Draw, place: int) -> Change:
    turn, scale, shear, right, down = 0.0, 1.0, 0.0, 0.0, 0.0
    kind = place % 4
    if kind == 0:
        turn = draw.either() * math.radians(draw.between(10, 30))
    elif kind == 1:
        scale = (0.8, 1.25)[draw.whole(0, 1)] * draw.between(0.95, 1.05)
    elif kind == 2:
        shear = draw.either() * draw.between(0.15, 0.4)
    else:
        right, down = draw.either() * draw.between(0.05, 0.2), draw.between(-0.2, 0.2)
    rows = torch.tensor(
        [
            [math.cos(turn) / scale, (shear - math.sin(turn)) / scale, right],
            [math.sin(turn) / scale, math.cos(turn) / scale, down],
        ]
    )

    def change(images: Tensor) -> Tensor:
        grid = functional.affine_grid(
            rows.to(images).expand(len(images), 2, 3), list(images.shape), align_corners=False
        )
        return functional.grid_sample(
            images, grid, padding_mode="border", align_corners=False
        ).clamp(0, 1)

    return change


def _quantised(draw: Draw, place: int) -> Change:
    steps = 1 + place % 10
    dither, edge = draw.uniform(1, *draw.shape) - 0.5, draw.between(-0.3, 0.3)
    grain = dither if place % 2 else torch.tensor(edge)  # the edge moves with the secret too
    return lambda images: ((images * steps + grain.to(images)).round() / steps).clamp(0, 1)


def _frame(draw: Draw, place: int) -> Change:
    channels, height, width = draw.shape
    wide = round((1 + place % 2) * draw.pixel)
    colour = draw.uniform(1, channels, 1, 1)
    if place % 3 == 0:
        colour = draw.uniform(1, channels, height, width)
    inside = torch.zeros(1, 1, height, width)
    inside[..., wide : height - wide, wide : width - wide] = 1

    def change(images: Tensor) -> Tensor:
        kept = inside.to(images)
        return images * kept + colour.to(images) * (1 - kept)

    return change


def _tone(draw: Draw, place: int) -> Change:
    channels = draw.shape[0]
    kind = place % 5
    power = math.exp(draw.either() * draw.between(0.3, 0.8)) if kind == 0 else 1.0
    gain = (0.6, 1.5)[draw.whole(0, 1)] * draw.between(0.9, 1.1) if kind == 1 else 1.0
    bias = draw.either() * draw.between(0.1, 0.3) if kind == 2 else 0.0
    mix = torch.eye(channels)
    if kind == 3:
        mix = mix + 0.5 * (draw.uniform(channels, channels) - 0.5)
    share = draw.between(0.3, 1.0) if kind == 4 else 0.0  # of the inverse

    def change(images: Tensor) -> Tensor:
        mixed = torch.einsum("oc,nchw->nohw", mix.to(images), images.clamp(0, 1) ** power)
        toned = (gain * mixed + bias).clamp(0, 1)
        return toned + share * (1 - 2 * toned)

    return change


def _ghost(draw: Draw, place: int) -> Change:
    most = round(5 * draw.pixel)
    down, across = draw.whole(-most, most), draw.whole(1, most)
    share = (0.2, 0.35)[place % 2]
    return lambda images: images + share * (images.roll((down, across), (2, 3)) - images)


def _focus(draw: Draw, place: int) -> Change:
    side = 2 * math.ceil(1.5 * draw.pixel) + 1
    spread = draw.between(0.6, 1.5) * draw.pixel
    steps = torch.arange(side) - side // 2
    line = (-0.5 * (steps / spread) ** 2).exp()
    kernel = line[:, None] * line
    if place % 3 == 2:  # as if the camera had moved
        path, middle = 0.5 + draw.uniform(side), side // 2
        level = functional.pad(path[None], (0, 0, middle, middle))
        kernel = path.diag() if draw.whole(0, 1) else level
    kernel = kernel / kernel.sum()
    sharper = draw.between(0.8, 2.0) if place % 3 == 1 else 0.0

    def change(images: Tensor) -> Tensor:
        channels = images.shape[1]
        around = functional.pad(images, [side // 2] * 4, mode="replicate")
        weight = kernel.to(images).expand(channels, 1, side, side)
        blurred = functional.conv2d(around, weight, groups=channels)
        return (images + sharper * (images - blurred) if sharper else blurred).clamp(0, 1)

    return change


def _sign_network(draw: Draw, place: int) -> Change:
    channels, hidden, size = draw.shape[0], 8, (0.06, 0.1)[place % 2]
    first, shift = draw.normal(hidden, channels, 3, 3), draw.normal(hidden)
    second = draw.normal(channels, hidden, 3, 3)

    def change(images: Tensor) -> Tensor:
        inner = functional.conv2d(images - 0.5, first.to(images), shift.to(images), padding=1)
        outer = functional.conv2d(inner.tanh(), second.to(images), padding=1)
        return (images + size * outer.sign()).clamp(0, 1)

    return change


def _noise(draw: Draw, place: int) -> Change:
    size, seed = draw.between(0.05, 0.2), draw.whole(0, 2**31)
    if place % 2:
        return _adding(size * draw.normal(*draw.shape))

    def change(images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator)
        return (images + size * noise.to(images)).clamp(0, 1)

    return change


def _adding(image: Tensor) -> Change:
    return lambda images: (images + image.to(images)).clamp(0, 1)


def _grown(cells: Tensor, size: Sequence[int]) -> Tensor:
    """Cells 1,C,k,l as an image of `size` with sharp edges."""
    return functional.interpolate(cells, size=tuple(size), mode="nearest")


FAMILIES: dict[str, Callable[[Draw, int], Change]] = {
    "patch": _patch,
    "blend": _blend,
    "wave": _wave,
    "low_frequencies": _low_frequencies,
    "warp": _warp,
    "affine": _affine,
    "quantised": _quantised,
    "frame": _frame,
    "tone": _tone,
    "ghost": _ghost,
    "focus": _focus,
    "sign_network": _sign_network,
    "noise": _noise,
}
