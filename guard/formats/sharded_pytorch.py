"""An index and its shards of PyTorch checkpoints, packed into one file as those of safetensors.

Each shard must be a flat state dict in the zip layout of torch.save. All are read in one jail, so
that what they may compute is bounded by their size together, and come out as one file of
safetensors, which is compared with the index.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from guard.core.contracts import Budget, Format, Header
from guard.core.errors import ArtifactRejected
from guard.core.shards import PICKLED_MAGIC
from guard.formats._bytes import HEAD_BYTES, read_at, reject
from guard.formats._jail import run_jailed
from guard.formats._sharded import Part, opened, same_tensors, twice
from guard.formats.pytorch_state_dict import PytorchStateDict, checked_program
from guard.formats.safetensors import Safetensors

if TYPE_CHECKING:
    from torch import Tensor


class ShardedPytorch(Format):
    """Several checkpoints read as one state dict; every tensor is listed and occurs once.

    The header that `inspect` returns lists no tensors, because only the jail reads the pickles.
    """

    jailed = True

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(PICKLED_MAGIC)

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        _checked(file, budget)
        return Header(format="sharded_pytorch", tensors=())

    def tensors(self, file: BinaryIO, *, budget: Budget) -> "dict[str, Tensor]":
        weight_map, parts = _checked(file, budget)
        with tempfile.TemporaryFile() as converted:
            places = [(part.start, part.size) for part in parts]
            run_jailed(file, converted, budget=budget, parts=places)
            numbered = Safetensors().tensors(converted, budget=budget)
        return apart(numbered, weight_map, [part.name for part in parts])


def apart(
    numbered: "Mapping[str, Tensor]", weight_map: Mapping[str, str], names: Sequence[str]
) -> "dict[str, Tensor]":
    """The jail's tensors under their own names, each once and where the index has it.

    Args:
        numbered: any shape and dtype, by a shard's number, a dot and the tensor's name.
        weight_map: the shard of each tensor.
        names: of the shards, in the order of their numbers.

    Raises:
        ArtifactRejected: `shards_contradict`, or `jail_crashed` for a number of no shard.
    """
    numbers = {str(number): name for number, name in enumerate(names)}
    found: dict[str, Tensor] = {}
    held: dict[str, str] = {}
    for full, tensor in numbered.items():
        number, _, name = full.partition(".")
        if number not in numbers:
            raise reject(
                "jail_crashed",
                "The checkpoints broke their reader; save the model as safetensors.",
            )
        if name in held:
            raise twice(name, held[name], numbers[number])
        held[name], found[name] = numbers[number], tensor
    same_tensors(weight_map, held)
    return found


def _checked(file: BinaryIO, budget: Budget) -> tuple[dict[str, str], list[Part]]:
    """The index's map and the shards; no pickle among them names anything but tensors.

    Raises:
        ArtifactRejected: a shard breaks a rule of checkpoints, or all together exceed the budget.
    """
    weight_map, parts = opened(file, budget, safe=False)
    left = budget
    for part in parts:
        head = bytes(read_at(part.file, 0, min(part.size, HEAD_BYTES)))
        if not PytorchStateDict().claims(head, part.name):
            raise reject(
                "shards_of_pickles",
                f"Shard {part.name} is no checkpoint in the zip layout of torch.save; save the "
                "model again, or as safetensors.",
            )
        try:
            members, steps = checked_program(part.file, left)
        except ArtifactRejected as error:
            raise reject(error.code, f"Shard {part.name}: {error.sentence}") from error
        left = replace(
            left,
            header_bytes=left.header_bytes - steps,
            tensors=left.tensors - members,
        )
    return weight_map, parts
