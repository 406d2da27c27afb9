"""safetensors: a length, a JSON header and tensor bytes, read by a strict parser of our own.

Format: https://github.com/huggingface/safetensors#format. The parser is stricter than the reference
reader, which takes repeated keys (the last one wins), control characters in names, NaN, empty
tensors beside absurd dimensions and any number of tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

from guard.core.contracts import Budget, Format, Header, TensorInfo
from guard.formats._bytes import read_at, reject, show, size_of
from guard.formats._dtypes import ITEM_BYTES, torch_dtypes
from guard.formats._json import decode_header
from guard.formats._names import check_name
from guard.formats._zip import has_end_record

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_BYTES = 8
MAX_DIMENSION = 2**31 - 1  # what every reader and every kernel can index
MAX_METADATA_ENTRIES = 1000
_FINITE_STEP = 1 << 24  # elements tested at once, to bound the mask's memory
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class Layout:
    """A checked header: where the tensor bytes start, and each tensor's place behind that."""

    start: int
    entries: tuple[tuple[TensorInfo, int, int], ...]  # (info, begin, end) in file order
    metadata: Mapping[str, str]


class Safetensors(Format):
    """The preferred format: data only, and every byte is checked."""

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        layout = read_layout(file, budget=budget)
        tensors = tuple(info for info, _, _ in layout.entries)
        return Header(format="safetensors", tensors=tensors, metadata=layout.metadata)

    def tensors(self, file: BinaryIO, *, budget: Budget) -> "dict[str, Tensor]":
        layout = read_layout(file, budget=budget)
        needed = layout.entries[-1][2]
        if needed > budget.memory_bytes:
            raise reject(
                "over_memory_budget",
                f"The tensors need {needed} bytes of memory; use a smaller model.",
            )
        found = {}
        for info, begin, end in layout.entries:
            found[info.name] = _tensor(info, read_at(file, layout.start + begin, end - begin))
        return found


def read_layout(file: BinaryIO, *, budget: Budget) -> Layout:
    """Read and check the header and the file's outline; no tensor data is read.

    Raises:
        ArtifactRejected: a rule is broken; `code` names it.
    """
    size = size_of(file, budget)
    if size < LENGTH_BYTES:
        raise reject(
            "file_too_small", "The file is too short for a safetensors header; upload it again."
        )
    # The length comes from the uploader: compare it before reading that much.
    length = int.from_bytes(read_at(file, 0, LENGTH_BYTES), "little")
    if length > budget.header_bytes:
        raise reject(
            "header_too_large",
            f"The header declares {length} bytes; the limit is {budget.header_bytes}.",
        )
    if length > size - LENGTH_BYTES:
        raise reject("header_truncated", "The file ends inside its header; upload it again.")
    header = decode_header(bytes(read_at(file, LENGTH_BYTES, length)), budget=budget)
    metadata = _metadata(header.pop("__metadata__", {}), budget)
    if not header:
        raise reject("no_tensors", "The file holds no tensors; upload the model's weights.")
    if len(header) > budget.tensors:
        raise reject(
            "too_many_tensors",
            f"The file holds {len(header)} tensors; the limit is {budget.tensors}.",
        )
    entries = [_entry(name, value, budget) for name, value in header.items()]
    total = sum(prod(info.shape) for info, _, _ in entries)
    if total > budget.parameters:
        raise reject(
            "too_many_parameters",
            f"The file holds {total} numbers; the limit is {budget.parameters}.",
        )
    entries.sort(key=lambda entry: (entry[1], entry[2]))
    _check_cover(entries, size - LENGTH_BYTES - length)
    if has_end_record(file, size):
        raise reject(
            "polyglot",
            "The file is safetensors and a zip archive at once; write it again with safetensors.",
        )
    return Layout(LENGTH_BYTES + length, tuple(entries), metadata)


def _metadata(value: Any, budget: Budget) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise reject("metadata_not_text", "__metadata__ must map names to strings.")
    size = sum(len(key) + len(item) for key, item in value.items())
    if size > budget.metadata_bytes or len(value) > MAX_METADATA_ENTRIES:
        raise reject(
            "metadata_too_large",
            f"__metadata__ is over {budget.metadata_bytes} characters; shorten it.",
        )
    if not all(_is_text(part) for pair in value.items() for part in pair):
        raise reject("metadata_control", "__metadata__ holds control characters; remove them.")
    return value


def _is_text(part: str) -> bool:
    return part.isprintable() or all(char.isprintable() or char in "\t\n\r" for char in part)


def _entry(name: str, value: Any, budget: Budget) -> tuple[TensorInfo, int, int]:
    check_name(name, budget=budget)
    if not isinstance(value, dict) or value.keys() != _ENTRY_KEYS:
        raise reject(
            "entry_malformed",
            f"Tensor {show(name)} must have dtype, shape and data_offsets, and no more.",
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise reject(
            "dtype_not_allowed", f"Tensor {show(name)} has a type that is not vetted; use float32."
        )
    if not _naturals(shape):
        raise reject(
            "shape_malformed",
            f"Tensor {show(name)}: its shape must be a list of non-negative integers.",
        )
    if len(shape) > budget.rank:
        raise reject(
            "rank_too_large",
            f"Tensor {show(name)} has {len(shape)} dimensions; the limit is {budget.rank}.",
        )
    if 0 in shape:
        raise reject("empty_tensor", f"Tensor {show(name)} has no elements; leave it out.")
    if max(shape, default=1) > MAX_DIMENSION:
        raise reject(
            "dimension_too_large", f"Tensor {show(name)} has a dimension above {MAX_DIMENSION}."
        )
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise reject(
            "offsets_malformed", f"Tensor {show(name)}: data_offsets must be [begin, end]."
        )
    begin, end = offsets
    if prod(shape) * ITEM_BYTES[dtype] != end - begin:  # Python's integers do not overflow
        raise reject(
            "length_mismatch",
            f"Tensor {show(name)}: its shape and type do not give {end - begin} bytes.",
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape)), begin, end


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(part) is int and part >= 0 for part in value)


def _check_cover(entries: list[tuple[TensorInfo, int, int]], length: int) -> None:
    """Refuse tensors that do not fill the file from end to end, with no bytes between them."""
    position = 0
    for info, begin, end in entries:
        if begin < position:
            raise reject(
                "offsets_overlap",
                f"Tensor {show(info.name)} shares bytes with another; write it on its own.",
            )
        if begin > position:
            raise reject(
                "offsets_hole",
                f"{begin - position} bytes before {show(info.name)} belong to no tensor.",
            )
        position = end
    if position > length:
        raise reject(
            "data_truncated", f"The file ends {position - length} bytes too early; upload it again."
        )
    if position < length:
        raise reject(
            "trailing_bytes",
            f"{length - position} bytes at the end belong to no tensor; remove them.",
        )


def _tensor(info: TensorInfo, data: bytearray) -> "Tensor":
    import torch

    if info.dtype == "BOOL" and data.translate(None, b"\0\1"):
        raise reject(
            "bool_value", f"Tensor {show(info.name)} holds a boolean that is neither 0 nor 1."
        )
    flat = torch.frombuffer(data, dtype=torch_dtypes()[info.dtype])
    if flat.is_floating_point():
        for part in flat.split(_FINITE_STEP):
            if not bool(torch.isfinite(part).all()):
                raise reject(
                    "not_finite",
                    f"Tensor {show(info.name)} holds NaN or infinity; train the model again.",
                )
    return flat.reshape(info.shape)
