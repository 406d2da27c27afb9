"""Arrays to small PNGs of our own making, as data URIs; no byte of an upload reaches a page.

Threat model C14: pictures are re-encoded here from numbers by Pillow, without metadata.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

SIDE = (
    168  # pixels on the page; small pictures grow by a whole factor, so that a pixel stays a square
)
LARGEST = (
    384  # larger pictures shrink to this, so that a page of ImageNet triggers stays a few megabytes
)
_CHECKER = (0.93, 0.80)  # the two greys that everywhere else mean "transparent"


def png_uri(picture: Any, *, largest: int = LARGEST) -> str:
    """A picture as `data:image/png;base64,...`.

    Args:
        picture: array C,H,W or H,W in [0, 1]; values outside are clipped, values that are not
            finite become 0. One channel is grey, three are RGB; of any other number the channels'
            mean is shown.
        largest: a longer side shrinks to this many pixels.
    """
    return _encode(_enlarged(_as_hwc(picture), largest))


def stamp_uri(mask: Any, pattern: Any) -> str:
    """What a trigger adds to a picture: `pattern` where `mask` is 1, a checkerboard where it is 0.

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


def _as_hwc(picture: Any) -> np.ndarray:
    """Float H,W,C with C in {1, 3}, finite, in [0, 1]."""
    array = np.nan_to_num(
        np.asarray(picture, dtype=np.float64), nan=0.0, posinf=1.0, neginf=0.0
    ).clip(0, 1)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"a picture must be C,H,W or H,W and not empty; this one is {array.shape}")
    if array.shape[0] not in (1, 3):
        array = array.mean(axis=0, keepdims=True)
    return np.moveaxis(array, 0, -1)


def _enlarged(picture: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    height, width = picture.shape[:2]
    step = -(-max(height, width) // largest)
    picture = picture[::step, ::step]
    factor = max(1, SIDE // max(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _encode(picture: np.ndarray) -> str:
    pixels = (picture * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
