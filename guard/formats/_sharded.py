"""What formats of several files share: a packed file is taken apart, and compared with its index.

Format: `guard.core.shards.opening`, then the index, then the shards. Index and shards must agree in
every tensor, so that nothing is read that is not listed and nothing is listed that is not read.
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.core.shards import LENGTH_BYTES, MAGIC, MAX_SHARDS, shard
from guard.formats._bytes import read_at, reject, show, size_of

_START = len(MAGIC) + LENGTH_BYTES
_MAX_DIRECTORY_BYTES = 1 << 20
_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """One shard; `file` has its bytes alone, which are `size` from `start` of the packed file."""

    name: str
    file: BinaryIO
    start: int
    size: int


class _Window(io.RawIOBase):
    """The bytes of `file` from `start` on, read as a file of `size` bytes."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = file, start, size, 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(min(count, left) if count >= 0 else left)
        self._at += len(data)
        return data


def opened(file: BinaryIO, budget: Budget, *, safe: bool) -> tuple[dict[str, str], list[Part]]:
    """The file of each tensor as the index lists them, and the shards, which fill the file.

    Args:
        file: seekable.
        budget: bounds the index.
        safe: whether the shards are safetensors.

    Raises:
        ArtifactRejected: the packed file is damaged, or the index is none of these shards.
    """
    index, parts = _taken_apart(file, budget, safe=safe)
    weight_map = _weight_map(index, budget, safe=safe)
    _same_files(set(weight_map.values()), {part.name for part in parts})
    return weight_map, parts


def _taken_apart(file: BinaryIO, budget: Budget, *, safe: bool) -> tuple[bytes, list[Part]]:
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
        isinstance(name, str) and _is_shard(name, safe=safe) for name, _ in listed
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
        window = cast("BinaryIO", _Window(file, position, part))
        shards.append(Part(name, window, position, part))
        position += part
    return data, shards


def _weight_map(data: bytes, budget: Budget, *, safe: bool) -> dict[str, str]:
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
    foreign = sorted({name for name in weight_map.values() if not _is_shard(name, safe=safe)})
    if foreign:
        raise reject(
            "shards_bad_index",
            f"The index names {show(foreign[0])}, which is no shard beside it; shards are called "
            f"NAME-00001-of-00002.{'safetensors' if safe else 'bin'}, so save the model again.",
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


def same_tensors(weight_map: Mapping[str, str], held: Mapping[str, str]) -> None:
    """Check that the index lists each tensor in the shard that holds it.

    Raises:
        ArtifactRejected: `shards_contradict`.
    """
    for name in sorted(weight_map.keys() | held.keys()):
        if weight_map.get(name) != held.get(name):
            listed, lies = (files.get(name, "no shard") for files in (weight_map, held))
            raise reject(
                "shards_contradict",
                f"The index has tensor {show(name)} in {listed}, and it lies in {lies}; save the "
                "model again with its index.",
            )


def twice(name: str, one: str, other: str) -> ArtifactRejected:
    """The refusal of a tensor that two shards hold."""
    return reject(
        "shards_contradict",
        f"Tensor {show(name)} is in {one} and in {other}; save the model again.",
    )


def _is_shard(name: str, *, safe: bool) -> bool:
    found = shard(name)
    return found is not None and found.safe is safe


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
