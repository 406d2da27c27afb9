"""Encoded images as the numbers that the served graph takes, read exactly as the handler does.

`guard.serving._requests` has the same rules for TorchServe; a test compares the two.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from guard.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Modes with eight bits a channel; 16-bit images would be clipped silently.
_READABLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def decoded(data: bytes, size: tuple[int, int, int]) -> "NDArray[np.float32]":
    """One PNG or JPEG of exactly `size` (channels, height, width).

    Returns:
        float32 C,H,W in [0, 1]; channels in the order grey, RGB or RGBA.

    Raises:
        InputError: it is damaged, of another size, or of another depth.
    """
    channels, height, width = size
    if channels not in _MODES:
        raise InputError(
            f"This model takes {channels} channels, which no image has; send FP32.",
            code="bad_channels",
        )
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            # Before a pixel is decoded: a small file may hold a huge image.
            if image.size != (width, height):
                raise InputError(
                    f"An image must be {width} x {height} pixels (width x height), not "
                    f"{image.width} x {image.height}.",
                    code="bad_shape",
                )
            if image.mode not in _READABLE_MODES:
                raise InputError("An image must have 8 bits a channel.", code="bad_depth")
            pixels: NDArray[np.uint8] = np.asarray(image.convert(_MODES[channels]))
    except UnidentifiedImageError as error:
        raise InputError("This is neither PNG nor JPEG.", code="bad_picture") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("The image is damaged; send it again.", code="bad_picture") from error
    plane = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return plane.astype(np.float32) / np.float32(255)
