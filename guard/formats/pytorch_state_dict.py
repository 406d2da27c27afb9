"""PyTorch zip checkpoints that hold a plain state dict.

They are converted to safetensors in the jail and read from there. torch.save has written this
format since version 1.6: an uncompressed zip with one folder, `data.pkl` and `data/<n>`.
"""

import re
import struct
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from guard.core.contracts import Budget, Format, Header
from guard.formats._bytes import UPLOAD_INSTEAD, read_at, reject, show
from guard.formats._jail import run_jailed
from guard.formats._pickle_scan import check_pickle
from guard.formats._zip import LOCAL_BYTES, MAGICS, Member, stored_members
from guard.formats.safetensors import Safetensors

if TYPE_CHECKING:
    from torch import Tensor

_PROGRAM = "data.pkl"
_OTHERS = re.compile(
    r"version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/[0-9]{1,9}"
)


class PytorchStateDict(Format):
    """Three readers must accept the file, one after the other.

    They are the guard's opcode list, torch's `weights_only` in the jail, and the guard's
    safetensors parser outside it. The header that `inspect` returns lists no tensors, because only
    the jail reads the pickle.
    """

    jailed = True

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        if not head.startswith(MAGICS[0]) or len(head) < LOCAL_BYTES:
            return False
        length = struct.unpack("<H", head[26:28])[0]
        first = head[LOCAL_BYTES : LOCAL_BYTES + length]
        return first == _PROGRAM.encode() or first.endswith(f"/{_PROGRAM}".encode())

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        checked_program(file, budget)
        return Header(format="pytorch_state_dict", tensors=())

    def tensors(self, file: BinaryIO, *, budget: Budget) -> "dict[str, Tensor]":
        self.inspect(file, budget=budget)
        with tempfile.TemporaryFile() as converted:
            run_jailed(file, converted, budget=budget)
            return Safetensors().tensors(converted, budget=budget)


def checked_program(file: BinaryIO, budget: Budget) -> tuple[int, int]:
    """Refuse an archive whose pickle names anything but tensors; no tensor is read.

    Returns:
        The number of its members, and the size of its pickle in bytes.

    Raises:
        ArtifactRejected: the archive or its pickle breaks a rule.
    """
    members = stored_members(file, budget=budget)
    program = _program(members)
    if program.size > budget.header_bytes:
        raise reject(
            "pickle_too_long",
            f"The checkpoint's pickle has {program.size} bytes; {UPLOAD_INSTEAD}.",
        )
    check_pickle(bytes(read_at(file, program.start, program.size)), budget=budget)
    return len(members), program.size


def _program(members: list[Member]) -> Member:
    top, _, _ = members[0].name.partition("/")
    inner = {}
    for member in members:
        folder, _, rest = member.name.partition("/")
        if folder != top or not (rest == _PROGRAM or _OTHERS.fullmatch(rest)):
            sentence = (
                f"The archive's member {show(member.name)} is not one that torch.save "
                f"writes; {UPLOAD_INSTEAD}."
            )
            raise reject("zip_unexpected_member", sentence)
        inner[rest] = member
    if _PROGRAM not in inner or "version" not in inner:
        raise reject(
            "zip_member_missing",
            f"The archive is not a complete PyTorch checkpoint; {UPLOAD_INSTEAD}.",
        )
    return inner[_PROGRAM]
