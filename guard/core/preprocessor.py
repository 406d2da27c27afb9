"""How a transformers model's images are made: the `preprocessor_config.json` beside its weights."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guard.core.errors import ManifestRejected

PREPROCESSOR_FILE = "preprocessor_config.json"
MAX_PREPROCESSOR_BYTES = 1 << 16
PREPROCESSOR_KEY = "preprocessor_config"  # where `config.json` holds it once both were read
_BYTE = 255.0
_Refusal = Callable[[str], ManifestRejected]


@dataclass(frozen=True)
class Preprocessor:
    """What the file says: `scale` is what a fully bright pixel becomes before normalisation."""

    size: tuple[int, int] | None  # height, width
    scale: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def read(cls, data: Any, refusal: _Refusal) -> "Preprocessor":
        """Read the decoded file; `refusal` makes the error of a sentence's end.

        Raises:
            ManifestRejected: it is no JSON object, or holds a step that the guard cannot take.
        """
        if not isinstance(data, dict):
            raise refusal(f"{PREPROCESSOR_FILE} beside it is no JSON object.")
        for key in ("offset", "rescale_offset"):
            if data.get(key):
                raise refusal(f"{PREPROCESSOR_FILE} has {key}, which is not supported.")
        scale = 1.0
        if not data.get("do_rescale", True):
            scale = _BYTE
        elif (factor := data.get("rescale_factor")) is not None:
            if not _is_number(factor) or not 1e-6 <= factor <= 1e3:
                raise refusal(f"{PREPROCESSOR_FILE}: rescale_factor must be a positive number.")
            scale = 1.0 if math.isclose(_BYTE * factor, 1, rel_tol=1e-6) else _BYTE * factor
        mean, std = (_numbers(data.get(f"image_{name}"), name, refusal) for name in ("mean", "std"))
        if not data.get("do_normalize", True):
            mean, std = (0.0,), (1.0,)
        return cls(_size(data), scale, mean, std)

    def normalisation(self) -> dict[str, list[float]]:
        """`mean` and `std` for images in 0..1, as far as they are known."""
        pairs = (("mean", self.mean), ("std", self.std))
        return {
            name: [part / self.scale for part in parts]
            for name, parts in pairs
            if parts is not None
        }


def readable(data: bytes) -> Any:
    """The JSON value of a file, in which no key is repeated; None where it is none."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None


def joined(config: bytes, processor: bytes | None) -> bytes:
    """The text of a `config.json` with the preprocessor's file in it.

    The file is not judged here: what cannot be read is refused when the whole is.

    Args:
        config: the bytes of `config.json`, for which `lacks_preprocessor` is true.
        processor: the bytes of `preprocessor_config.json`, or None where there is none.
    """
    if processor is None:
        return config
    value = readable(processor)
    found = "unreadable" if value is None else value
    return json.dumps({**readable(config), PREPROCESSOR_KEY: found}).encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e6


def _numbers(value: Any, name: str, refusal: _Refusal) -> tuple[float, ...] | None:
    if value is None:
        return None
    parts = value if isinstance(value, list) else [value]
    if not 1 <= len(parts) <= 16 or not all(_is_number(part) for part in parts):
        raise refusal(f"{PREPROCESSOR_FILE}: image_{name} must hold finite numbers.")
    return tuple(float(part) for part in parts)


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of what the network is fed with, where the file fixes them."""
    if data.get("do_center_crop") and (found := _sides(data.get("crop_size"))):
        return found
    if not data.get("do_resize", True):
        return None
    size = data.get("size")
    if isinstance(size, dict) and "shortest_edge" in size:
        kind = data.get("image_processor_type", data.get("feature_extractor_type"))
        # ConvNeXt's processor crops to a square of that side; the others keep the long side.
        square = isinstance(kind, str) and kind.startswith("ConvNext")
        return _sides(size["shortest_edge"]) if square else None
    return _sides(size)


def _sides(value: Any) -> tuple[int, int] | None:
    two = isinstance(value, dict)
    pair = (value.get("height"), value.get("width")) if two else (value, value)
    return pair if all(type(side) is int and side > 0 for side in pair) else None
