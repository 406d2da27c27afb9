"""An index and its shards of safetensors, packed into one file by the intake or at the desk.

Format: `guard.core.shards.opening`, then the index, then the shards. Each shard is read by the
parser of safetensors. Index and shards must agree in every tensor, so that nothing is read that is
not listed and nothing is listed that is not read.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from guard.core.contracts import Budget, Format, Header, TensorInfo
from guard.core.errors import ArtifactRejected
from guard.core.shards import LENGTH_BYTES, MAGIC, MAX_SHARDS, shard
from guard.formats._bytes import read_at, reject, show, size_of
from guard.formats.safetensors import Safetensors, read_layout

if TYPE_CHECKING:
    from torch import Tensor

_START = len(MAGIC) + LENGTH_BYTES
_MAX_DIRECTORY_BYTES = 1 << 20
_SHOWN = 3
_Tensors = list[tuple[TensorInfo, int, int]]


@dataclass(frozen=True)
class _Shard:
    name: str
    file: BinaryIO  # this shard's bytes alone


class _Window:
    """The bytes of `file` from `start` on, read as a file of `size` bytes."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, count: int) -> bytes:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(count, self._size - self._at)))
        self._at += len(data)
        return data


class ShardedSafetensors(Format):
    """Several safetensors files read as one state dict; every tensor is listed and occurs once."""

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(MAGIC)

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        infos = [info for _, tensors in _checked(file, budget) for info, _, _ in tensors]
        return Header(format="sharded_safetensors", tensors=tuple(infos))

    def tensors(self, file: BinaryIO, *, budget: Budget) -> "dict[str, Tensor]":
        checked = _checked(file, budget)
        needed = sum(tensors[-1][2] for _, tensors in checked)
        if needed > budget.memory_bytes:
            raise reject(
                "over_memory_budget",
                f"The tensors need {needed} bytes of memory; use a smaller model.",
            )
        found: dict[str, Tensor] = {}
        for part, _ in checked:
            found |= Safetensors().tensors(part.file, budget=budget)
        return found


def _checked(file: BinaryIO, budget: Budget) -> list[tuple[_Shard, _Tensors]]:
    """The shards and their tensors in file order; no tensor data is read.

    Raises:
        ArtifactRejected: a shard breaks a rule of safetensors, all together exceed the budget, or
            they and the index contradict each other.
    """
    index, shards = _opened(file, budget)
    weight_map = _weight_map(index, budget)
    _same_files(set(weight_map.values()), {part.name for part in shards})
    found: list[tuple[_Shard, _Tensors]] = []
    held: dict[str, str] = {}
    left = budget
    for part in shards:
        try:
            layout = read_layout(part.file, budget=left)
        except ArtifactRejected as error:
            raise reject(error.code, f"Shard {part.name}: {error.sentence}") from error
        for info, _, _ in layout.entries:
            if info.name in held:
                raise reject(
                    "shards_contradict",
                    f"Tensor {show(info.name)} is in {held[info.name]} and in {part.name}; save "
                    "the model again.",
                )
            held[info.name] = part.name
        numbers = sum(prod(info.shape) for info, _, _ in layout.entries)
        left = replace(
            left,
            header_bytes=left.header_bytes - layout.start,
            tensors=left.tensors - len(layout.entries),
            parameters=left.parameters - numbers,
        )
        found.append((part, list(layout.entries)))
    _same_tensors(weight_map, held)
    return found


def _opened(file: BinaryIO, budget: Budget) -> tuple[bytes, list[_Shard]]:
    """The index's bytes and the shards; they must fill the file."""
    size = size_of(file, budget)
    length = int.from_bytes(read_at(file, len(MAGIC), LENGTH_BYTES), "little")
    if length > min(size - _START, _MAX_DIRECTORY_BYTES):
        raise _damaged()
    try:
        directory = json.loads(bytes(read_at(file, _START, length)))
        index, listed = directory["index"], [(name, part) for name, part in directory["shards"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged() from error
    sizes = [index, *(part for _, part in listed)]
    if not all(type(part) is int and part >= 0 for part in sizes) or not all(
        isinstance(name, str) and _is_shard(name) for name, _ in listed
    ):
        raise _damaged()
    if _START + length + sum(sizes) != size or len({name for name, _ in listed}) != len(listed):
        raise _damaged()
    if len(listed) > MAX_SHARDS:
        raise reject("too_many_shards", f"The model has more than {MAX_SHARDS} shards.")
    if index > budget.header_bytes:
        raise reject(
            "header_too_large",
            f"The index has {index} bytes; the limit is {budget.header_bytes}.",
        )
    position = _START + length
    data, position = bytes(read_at(file, position, index)), position + index
    shards = []
    for name, part in listed:
        shards.append(_Shard(name, cast("BinaryIO", _Window(file, position, part))))
        position += part
    return data, shards


def _weight_map(data: bytes, budget: Budget) -> dict[str, str]:
    """The file of each tensor, as the index lists them."""
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise reject(
            "shards_bad_index",
            "The index of the shards is no JSON object in which each key occurs once; save the "
            "model again.",
        ) from error
    weight_map: Any = value.get("weight_map") if isinstance(value, dict) else None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise reject(
            "shards_bad_index",
            "The index of the shards needs a weight_map with the file name of each tensor; save "
            "the model again.",
        )
    if len(weight_map) > budget.tensors:
        raise reject(
            "too_many_tensors",
            f"The index lists {len(weight_map)} tensors; the limit is {budget.tensors}.",
        )
    foreign = sorted({name for name in weight_map.values() if not _is_shard(name)})
    if foreign:
        raise reject(
            "shards_bad_index",
            f"The index names {show(foreign[0])}, which is no shard beside it; shards are called "
            "NAME-00001-of-00002.safetensors, so save the model again.",
        )
    return weight_map


def _same_files(named: set[str], there: set[str]) -> None:
    if missing := sorted(named - there):
        raise reject(
            "shards_incomplete",
            f"The index names {len(missing)} shard(s) that are not beside it: {_listed(missing)}; "
            "upload them too.",
        )
    if spare := sorted(there - named):
        raise reject(
            "shards_contradict",
            f"The index does not name {_listed(spare)}, which {'lie' if spare[1:] else 'lies'} "
            "beside it; remove what is not of this model.",
        )


def _same_tensors(weight_map: Mapping[str, str], held: Mapping[str, str]) -> None:
    for name in sorted(weight_map.keys() | held.keys()):
        if weight_map.get(name) != held.get(name):
            listed, lies = (files.get(name, "no shard") for files in (weight_map, held))
            raise reject(
                "shards_contradict",
                f"The index has tensor {show(name)} in {listed}, and it lies in {lies}; save the "
                "model again with its index.",
            )


def _is_shard(name: str) -> bool:
    found = shard(name)
    return found is not None and found.safe


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _damaged() -> ArtifactRejected:
    return reject(
        "shards_damaged",
        "The packed shards are damaged; upload the shards and their index as they are.",
    )
