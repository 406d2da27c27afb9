"""Parse one request (PNG, JPEG, or numbers as JSON) to a tensor of the manifest's shape.

Values outside [0, 1] and images of other sizes are refused, not corrected: the model must see what
was vetted.
"""

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from guard.core.errors import InputError
from guard.core.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_INSTANCES = 64
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Modes with eight bits a channel; 16-bit images would be clipped silently.
_READABLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_SEND_AN_IMAGE = (
    "send a PNG or JPEG with its Content-Type, or JSON with the key 'image' or 'instances'"
)


def parse(row: dict[str, Any], manifest: Manifest) -> tuple[torch.Tensor, bool]:
    """The images of one request, and whether the request used `instances`.

    Returns:
        Float32 N,C,H,W in [0, 1] on the CPU; N is 1 unless the request used `instances`.

    Raises:
        InputError: the request is malformed; the message is for the client.
    """
    body = row.get("body", row.get("data"))
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes | bytearray):
        if body[:1] not in (b"{", b"["):
            return _image(bytes(body), manifest)[None], False
        body = _json(bytes(body))
    if isinstance(body, dict):
        if body.keys() == {"image"}:
            return _numbers(body["image"], manifest)[None], False
        if body.keys() == {"instances"}:
            return _instances(body["instances"], manifest), True
    raise InputError(f"This is not a valid request: {_SEND_AN_IMAGE}.", code="bad_request")


def _instances(value: Any, manifest: Manifest) -> torch.Tensor:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_INSTANCES:
        raise InputError(
            f"'instances' must hold 1 to {MAX_INSTANCES} images.", code="bad_instances"
        )
    return torch.stack([_numbers(item, manifest) for item in value])


def _numbers(value: Any, manifest: Manifest) -> torch.Tensor:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # ragged, too deep, or integers beyond 64 bits
        array = np.asarray("")
    if array.dtype.kind not in "iuf":  # text and booleans would be cast silently
        raise InputError(
            "An image must be nested lists of numbers, all of one length.", code="bad_numbers"
        )
    if array.shape != manifest.input_size:
        raise InputError(
            f"An image must have the shape {_size(manifest.input_size)} (channels, height, width), "
            f"not {_size(array.shape)}.",
            code="bad_shape",
        )
    if not bool(np.all((array >= 0) & (array <= 1))):  # false for NaN as well
        raise InputError("Image values must be finite and lie in 0..1.", code="bad_range")
    return torch.from_numpy(array.astype(np.float32))


def _image(data: bytes, manifest: Manifest) -> torch.Tensor:
    channels, height, width = manifest.input_size
    if channels not in _MODES:
        raise InputError(
            f"This model takes {channels} channels, which no image has; send numbers as JSON.",
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
        raise InputError(
            # The name of the code is old; clients may depend on it.
            f"This is neither PNG nor JPEG: {_SEND_AN_IMAGE}.",
            code="bad_picture",
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("The image is damaged; send it again.", code="bad_picture") from error
    plane = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(plane.astype(np.float32)) / 255


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("The body starts like JSON but is not valid.", code="bad_json") from error


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no shape"
