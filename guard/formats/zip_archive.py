"""Zip archives other than PyTorch checkpoints; recognised and refused.

Among them are .mar, .pt2, .keras, .npz and TorchScript files.
"""

from typing import BinaryIO

from guard.core.contracts import Budget, Header
from guard.formats._refused import Refused
from guard.formats._zip import MAGICS, directory, refusal
from guard.formats.pytorch_state_dict import PytorchStateDict


class ZipArchive(Refused):
    """The member list shows which kind it is; nothing is decompressed."""

    code = "zip_archive"
    thing = "a zip archive that is not a PyTorch checkpoint"

    def claims(self, head: bytes, name: str) -> bool:
        return head.startswith(MAGICS) and not PytorchStateDict().claims(head, name)

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:
        known = refusal([info.filename for info in directory(file, budget=budget)])
        if known is not None:
            raise known
        return super().inspect(file, budget=budget)
