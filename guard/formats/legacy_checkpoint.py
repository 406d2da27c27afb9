"""What torch.save wrote before version 1.6, and still writes on request: pickles, then storages.

Format: five pickles (a magic number, a protocol number, facts about the machine, the value, the
storages' keys), then each storage as a 64-bit count and its elements. It is read in the jail by
the same three readers as the zip checkpoints of today.
"""

import io
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from guard.core.contracts import Budget, Format, Header
from guard.formats._bytes import UPLOAD_INSTEAD, read_at, reject, size_of
from guard.formats._jail import run_jailed
from guard.formats._pickle_scan import check_pickles
from guard.formats._zip import has_end_record
from guard.formats.safetensors import Safetensors

if TYPE_CHECKING:
    from torch import Tensor

#: The magic number 0x1950a86a20f9469cfc6c and the protocol 1001, as pickles of protocol 2.
START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
_PICKLES = 5


class LegacyCheckpoint(Format):
    """A plain state dict in the old layout; every other pickle is refused by `PickleFile`."""

    jailed = True

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(START)

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        size = size_of(file, budget)
        whole = size <= budget.header_bytes
        start = bytes(read_at(file, 0, size if whole else budget.header_bytes))
        check_pickles(io.BytesIO(start), _PICKLES, budget=budget, whole=whole)
        if has_end_record(file, size):
            raise reject(
                "polyglot",
                "The file is an old PyTorch checkpoint and a zip archive at once; "
                f"{UPLOAD_INSTEAD}.",
            )
        return Header(format="legacy_checkpoint", tensors=())

    def tensors(self, file: BinaryIO, *, budget: Budget) -> "dict[str, Tensor]":
        self.inspect(file, budget=budget)
        with tempfile.TemporaryFile() as converted:
            run_jailed(file, converted, budget=budget)
            return Safetensors().tensors(converted, budget=budget)
