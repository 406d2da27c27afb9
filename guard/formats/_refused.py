"""The base of formats that are recognised only to explain why they are not vetted."""

from abc import ABC
from typing import Any, BinaryIO, ClassVar

from guard.core.contracts import Budget, Format, Header
from guard.formats._bytes import UPLOAD_INSTEAD, reject


class Refused(Format, ABC):
    """A subclass sets `code` and `thing`, and recognises its files in `claims`."""

    vettable = False
    code: ClassVar[str]
    thing: ClassVar[str]

    def inspect(self, file: BinaryIO, *, budget: Budget) -> Header:  # noqa: ARG002 - the contract's signature
        raise reject(self.code, f"This is {self.thing}, which is not vetted; {UPLOAD_INSTEAD}.")

    def tensors(self, file: BinaryIO, *, budget: Budget) -> dict[str, Any]:
        self.inspect(file, budget=budget)
        return {}
