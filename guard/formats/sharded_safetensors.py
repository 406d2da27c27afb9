"""An index and its shards of safetensors, packed into one file by the intake or at the desk.

Each shard is read by the parser of safetensors; `guard.formats._sharded` compares them with the
index.
"""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from guard.core.contracts import Budget, Format, Header, TensorInfo
from guard.core.errors import ArtifactRejected
from guard.core.shards import MAGIC
from guard.formats._bytes import reject
from guard.formats._sharded import Part, opened, same_tensors, twice
from guard.formats.safetensors import Safetensors, read_layout

if TYPE_CHECKING:
    from torch import Tensor

_Tensors = list[tuple[TensorInfo, int, int]]


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


def _checked(file: BinaryIO, budget: Budget) -> list[tuple[Part, _Tensors]]:
    """The shards and their tensors in file order; no tensor data is read.

    Raises:
        ArtifactRejected: a shard breaks a rule of safetensors, all together exceed the budget, or
            they and the index contradict each other.
    """
    weight_map, shards = opened(file, budget, safe=True)
    found: list[tuple[Part, _Tensors]] = []
    held: dict[str, str] = {}
    left = budget
    for part in shards:
        try:
            layout = read_layout(part.file, budget=left)
        except ArtifactRejected as error:
            raise reject(error.code, f"Shard {part.name}: {error.sentence}") from error
        for info, _, _ in layout.entries:
            if info.name in held:
                raise twice(info.name, held[info.name], part.name)
            held[info.name] = part.name
        numbers = sum(prod(info.shape) for info, _, _ in layout.entries)
        left = replace(
            left,
            header_bytes=left.header_bytes - layout.start,
            tensors=left.tensors - len(layout.entries),
            parameters=left.parameters - numbers,
        )
        found.append((part, list(layout.entries)))
    same_tensors(weight_map, held)
    return found
