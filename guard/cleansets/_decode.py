"""Decode one image to an array with Pillow, after its size was checked."""

import io
from typing import TYPE_CHECKING

import numpy as np

from guard.cleansets._raw import refuse
from guard.core.errors import CleanSetError
from guard.core.manifest import MAX_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

#: The limit of one encoded file; a 4096 x 4096 PNG of noise takes 50 MB.
MAX_ENCODED_BYTES = 64 << 20
#: Only formats that decode inside the process; for EPS, Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_ALPHA = {"LA": "L", "PA": "RGB", "RGBA": "RGB", "La": "L", "RGBa": "RGB"}
_MODES = {
    "1": "L",
    "L": "L",
    "P": "RGB",
    "RGB": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}


def decode(data: bytes, source: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image in `data` as uint8 C,H,W: C is 1 for grey, 3 for colour.

    Where `size` (height, width) is given, an image of another size is refused before it is decoded.

    EXIF orientation is ignored, as in torchvision's loaders, because the clean set must look like
    the training data.

    Raises:
        CleanSetError: not an image of a known format, broken, too large, animated, transparent or
            16 bits deep, or of another size.
    """
    from PIL import Image

    if len(data) > MAX_ENCODED_BYTES:
        raise refuse(
            "too_large",
            f"{source} has {len(data):,} bytes; the limit is {MAX_ENCODED_BYTES:,}, so shrink it.",
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header only
            _check(image, source, size)
            image.load()
            pixels = np.asarray(_plain(image, source), dtype=np.uint8)
    except CleanSetError:
        raise
    except Image.DecompressionBombError as error:
        # Far above our own limit; Pillow refuses it before `_check` runs.
        raise refuse("too_large", f"{source} has too many pixels; shrink it.") from error
    except Exception as error:  # Pillow's plug-ins raise whatever their parsers raise
        raise refuse(
            "unreadable_image",
            f"{source} cannot be decoded as an image ({type(error).__name__}); replace it.",
        ) from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check(image: "Image", source: str, size: tuple[int, int] | None) -> None:
    width, height = image.size
    if not 0 < max(width, height) <= MAX_SIDE:
        raise refuse(
            "too_large",
            f"{source} is {width}x{height}; the limit is {MAX_SIDE} on each side, so shrink it.",
        )
    if size is not None and (height, width) != size:
        raise refuse(
            "mixed_sizes",
            f"{source} is {width}x{height}, not {size[1]}x{size[0]}; bring all images to one size.",
        )
    if getattr(image, "n_frames", 1) > 1:
        raise refuse("bad_image", f"{source} holds several frames; keep one.")


def _plain(image: "Image", source: str) -> "Image":
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in _ALPHA:
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        if (low, high) != (255, 255):
            raise refuse(
                "bad_image",
                f"{source} is transparent in places; flatten it as was done for training.",
            )
        return image.convert(_ALPHA[image.mode])
    if image.mode not in _MODES:
        raise refuse(
            "bad_image",
            f"{source} has the pixel format {image.mode}; save it as 8-bit grey or colour.",
        )
    return image if image.mode == _MODES[image.mode] else image.convert(_MODES[image.mode])
