"""Encode arrays as small PNGs in data URIs, so that no byte of an upload reaches a page.

Threat model C14: Pillow encodes each image from numbers, without metadata.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

# Pixels on the page. A small image grows by a whole factor, so that its pixels stay square.
SIDE = 168
# Larger images shrink to this, so that a page of ImageNet triggers takes only a few megabytes.
LARGEST = 384
# Of one of many images that stand side by side: sixty of noise and colour stay under a megabyte.
THUMBNAIL = 56
_CHECKER = (0.93, 0.80)  # the two greys that image editors use for "transparent"


def png_uri(image: Any, *, largest: int = LARGEST) -> str:
    """An image as `data:image/png;base64,...`.

    Args:
        image: array C,H,W or H,W in [0, 1]; values outside are clipped, NaN becomes 0. One channel
            is grey, three are RGB; with any other number the mean of the channels is shown.
        largest: a side longer than this many pixels shrinks to it.
    """
    return _encode(_enlarged(_as_hwc(image), largest))


def thumbnail_uri(image: Any, *, largest: int = THUMBNAIL) -> str:
    """A small form of an image, as `data:image/png;base64,...`.

    Args:
        image: array uint8 C,H,W or H,W; channels as `png_uri`.
        largest: a side longer than this many pixels shrinks to it. Neighbours are averaged, so that
            a trigger of a few pixels fades but does not fall between two samples.
    """
    whole = Image.fromarray(_pixels(_as_hwc(np.asarray(image, dtype=np.float64) / 255)))
    whole.thumbnail((largest, largest), Image.Resampling.BOX)
    return _png(whole)


def stamp_uri(mask: Any, pattern: Any) -> str:
    """What a trigger adds to an image: `pattern` where `mask` is 1, a checkerboard where it is 0.

    Args:
        mask: array H,W (or 1,H,W) in [0, 1].
        pattern: array C,H,W in [0, 1].
    """
    colours = _enlarged(_as_hwc(pattern))
    cover = _enlarged(_as_hwc(mask))[..., :1]
    height, width = colours.shape[:2]
    rows, columns = np.indices((height, width)) // 8
    board = np.where((rows + columns) % 2 == 0, *_CHECKER)[..., None]
    return _encode(cover * colours + (1 - cover) * board)


def _as_hwc(image: Any) -> np.ndarray:
    """The image as finite floats H,W,C in [0, 1], with C either 1 or 3."""
    array = np.nan_to_num(
        np.asarray(image, dtype=np.float64), nan=0.0, posinf=1.0, neginf=0.0
    ).clip(0, 1)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"an image must be C,H,W or H,W and not empty; this one is {array.shape}")
    if array.shape[0] not in (1, 3):
        array = array.mean(axis=0, keepdims=True)
    return np.moveaxis(array, 0, -1)


def _enlarged(image: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    height, width = image.shape[:2]
    step = -(-max(height, width) // largest)
    image = image[::step, ::step]
    factor = max(1, SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _encode(values: np.ndarray) -> str:
    return _png(Image.fromarray(_pixels(values)))


def _pixels(values: np.ndarray) -> np.ndarray:
    """Floats H,W,C in [0, 1] as uint8 H,W,3 or, of one channel, H,W."""
    pixels: np.ndarray = (values * 255).round().astype(np.uint8)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _png(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
