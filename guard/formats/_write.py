"""Write safetensors bytes as a stream, the same bytes for the same tensors every time.

Order: larger element types first, so that every tensor stays aligned, then by type and name.
"""

import struct
from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from guard.core.contracts import TensorInfo
from guard.core.digests import canonical_json
from guard.formats._bytes import CHUNK_BYTES, reject, show
from guard.formats._dtypes import ITEM_BYTES, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

_ALIGNMENT = 8


def describe(tensors: "Mapping[str, Tensor]") -> list[TensorInfo]:
    """The tensors in file order.

    Raises:
        ArtifactRejected: `dtype_not_allowed`.
    """
    infos = []
    for name, tensor in tensors.items():
        dtype = dtype_name(tensor.dtype)
        if dtype is None:
            raise reject(
                "dtype_not_allowed",
                f"Tensor {show(name)} has a type that is not vetted; use float32.",
            )
        infos.append(TensorInfo(name=name, dtype=dtype, shape=tuple(tensor.shape)))
    return sorted(infos, key=file_order)


def file_order(info: TensorInfo) -> tuple[int, str, str]:
    """The sort key of a tensor's place in the file."""
    return -ITEM_BYTES[info.dtype], info.dtype, info.name


def header_bytes(infos: list[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header for tensors that follow each other in the order of `infos`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for info in infos:
        end = position + prod(info.shape) * ITEM_BYTES[info.dtype]
        header[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = canonical_json(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def write_tensors(
    tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str], sink: Callable[[bytes], Any]
) -> None:
    """Send the whole file to `sink`, piece by piece; tensors may be on any device."""
    import torch

    infos = describe(tensors)
    sink(header_bytes(infos, metadata))
    for info in infos:
        flat = tensors[info.name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        for part in flat.split(CHUNK_BYTES):
            sink(part.numpy().tobytes())
