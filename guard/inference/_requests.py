"""Parse one inference request: JSON, or JSON and raw tensors in one body.

Values outside [0, 1] and images of other sizes are refused, not corrected: the model must see what
was vetted.

Protocol: https://github.com/kserve/open-inference-protocol; raw tensors:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.errors import InputError
from guard.inference._images import decoded
from guard.inference.runtime import INPUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BATCH = 64
_MAX_ID = 256
_LENGTH_BYTES = 4  # in front of each element of raw BYTES
#: Extensions that would give the request another meaning, and that this server does not have.
_UNKNOWN = ("classification", "shared_memory_region", "sequence_id")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: float32 images N,C,H,W in [0, 1], and which outputs are wanted in which form."""

    id: str
    images: "NDArray[np.float32]"
    outputs: tuple[tuple[str, bool], ...]  # the name, and whether it is wanted as raw bytes


def parse(
    body: bytes, header_length: str | None, size: tuple[int, int, int], names: Sequence[str]
) -> Request:
    """The request in a body.

    Args:
        header_length: the header `Inference-Header-Content-Length`: how many bytes are JSON, where
            raw tensors follow.
        size: channels, height and width that the model takes.
        names: the outputs that it has.

    Raises:
        InputError: the request is malformed; the message is for the client.
    """
    head, raw = _split(body, header_length)
    value = _json(head)
    name = value.get("id", "")
    if not isinstance(name, str) or len(name) > _MAX_ID:
        raise InputError(f"'id' must be a text of at most {_MAX_ID} characters.", code="bad_inputs")
    all_raw = _parameters(value).get("binary_data_output") is True
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InputError(f"'inputs' must hold one tensor, named {INPUT!r}.", code="bad_inputs")
    return Request(
        id=name,
        images=_images(inputs[0], raw, size),
        outputs=_outputs(value.get("outputs"), names, all_raw=all_raw),
    )


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes | None]:
    if header_length is None:
        return body, None
    if not header_length.isascii() or not header_length.isdigit() or len(header_length) > 10:
        raise InputError("The header's length must be a number.", code="bad_binary_size")
    length = int(header_length)
    if length > len(body):
        raise InputError("The body is shorter than its header.", code="bad_binary_size")
    return body[:length], body[length:]


def _json(head: bytes) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(head, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "The body is no JSON of an inference request; NaN and Infinity are none either.",
            code="bad_json",
        ) from error
    if not isinstance(value, dict):
        raise InputError("An inference request is a JSON object.", code="bad_json")
    return value


def _parameters(value: Mapping[str, Any]) -> dict[str, Any]:
    found = value.get("parameters", {})
    if not isinstance(found, dict):
        raise InputError("'parameters' must be a JSON object.", code="bad_inputs")
    if unknown := [name for name in _UNKNOWN if found.get(name)]:
        raise InputError(f"This server has no {unknown[0]!r}.", code="bad_inputs")
    return found


def _outputs(value: Any, names: Sequence[str], *, all_raw: bool) -> tuple[tuple[str, bool], ...]:
    if value is None or value == []:
        return tuple((name, all_raw) for name in names)
    if not isinstance(value, list) or len(value) > len(names):
        raise InputError(f"'outputs' must be a list of {', '.join(names)}.", code="bad_inputs")
    found = []
    for one in value:
        if not isinstance(one, dict) or one.get("name") not in names:
            raise InputError(f"The outputs are {', '.join(names)}.", code="bad_inputs")
        found.append((one["name"], _parameters(one).get("binary_data", all_raw) is True))
    if len({name for name, _ in found}) != len(found):
        raise InputError("An output is asked for twice.", code="bad_inputs")
    return tuple(found)


def _images(
    tensor: Mapping[str, Any], raw: bytes | None, size: tuple[int, int, int]
) -> "NDArray[np.float32]":
    kind, shape, parameters = tensor.get("datatype"), tensor.get("shape"), _parameters(tensor)
    if tensor.get("name") != INPUT or kind not in ("FP32", "UINT8", "BYTES"):
        raise InputError(
            f"The input is named {INPUT!r}, and is FP32 (0..1), UINT8 (0..255) or BYTES (PNG or "
            "JPEG).",
            code="bad_inputs",
        )
    if not (
        isinstance(shape, list)
        and all(type(one) is int for one in shape)
        and shape[1:] == ([] if kind == "BYTES" else list(size))
        and 1 <= shape[0] <= MAX_BATCH
    ):
        wanted = "[N]" if kind == "BYTES" else f"[N, {', '.join(map(str, size))}]"
        raise InputError(
            f"The shape of {kind} images must be {wanted} with N of 1 to {MAX_BATCH}.",
            code="bad_shape",
        )
    data = tensor.get("data")
    if "binary_data_size" in parameters:
        if raw is None or data is not None or parameters["binary_data_size"] != len(raw):
            raise InputError(
                "'binary_data_size' must be the number of bytes that follow the JSON header.",
                code="bad_binary_size",
            )
        return _from_raw(kind, shape, raw, size)
    if raw:
        raise InputError("Bytes follow the JSON that no tensor claims.", code="bad_binary_size")
    if kind == "BYTES":
        return _decoded(_texts(data, shape[0]), size)
    return _checked(_numbers(data, shape), kind)


def _from_raw(
    kind: str, shape: list[int], raw: bytes, size: tuple[int, int, int]
) -> "NDArray[np.float32]":
    if kind == "BYTES":
        return _decoded(_elements(raw, shape[0]), size)
    dtype = np.dtype("<f4" if kind == "FP32" else "u1")
    if len(raw) != dtype.itemsize * prod(shape):
        raise InputError("The tensor's bytes do not fill its shape.", code="bad_binary_size")
    return _checked(np.frombuffer(raw, dtype).reshape(shape), kind)


def _elements(raw: bytes, count: int) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) < count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        found.append(raw[start:at])
    if len(found) != count or at != len(raw):
        raise InputError("The tensor's bytes do not fill its shape.", code="bad_binary_size")
    return found


def _texts(data: Any, count: int) -> list[bytes]:
    if not isinstance(data, list) or len(data) != count:
        raise InputError("'data' must hold one text for each image.", code="bad_numbers")
    try:
        return [base64.b64decode(one, validate=True) for one in data]
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(
            "Images in JSON are base64 of PNG or JPEG bytes.", code="bad_picture"
        ) from error


def _decoded(files: list[bytes], size: tuple[int, int, int]) -> "NDArray[np.float32]":
    return np.stack([decoded(one, size) for one in files])


def _numbers(data: Any, shape: list[int]) -> "NDArray[Any]":
    """Numbers as flat or nested lists, in rows (the last index first)."""
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError):  # ragged, too deep, or integers beyond 64 bits
        array = np.asarray("")
    if array.dtype.kind not in "iuf":  # text and booleans would be cast silently
        raise InputError("'data' must be lists of numbers, all of one length.", code="bad_numbers")
    if array.shape not in ((prod(shape),), tuple(shape)):
        raise InputError("'data' does not fill 'shape'.", code="bad_shape")
    return array.reshape(shape)


def _checked(array: "NDArray[Any]", kind: str) -> "NDArray[np.float32]":
    if kind == "UINT8":
        if array.dtype.kind == "f" or not bool(np.all((array >= 0) & (array <= 255))):
            raise InputError("UINT8 values are whole and lie in 0..255.", code="bad_range")
        return array.astype(np.float32) / np.float32(255)
    if not bool(np.all((array >= 0) & (array <= 1))):  # false for NaN as well
        raise InputError("FP32 values must be finite and lie in 0..1.", code="bad_range")
    return array.astype(np.float32)
