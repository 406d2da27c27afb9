"""Bare pickles; recognised and refused.

They are whole modules, joblib dumps and what other programs than torch.save write.
"""

from guard.formats._pickle_scan import looks_pickled
from guard.formats._refused import Refused
from guard.formats.legacy_checkpoint import LegacyCheckpoint


class PickleFile(Refused):
    """A pickle is a program, so it is not read, not even in the jail."""

    code = "pickle"
    thing = "a bare pickle (a Python dump), a program that runs when it is loaded"

    def claims(self, head: bytes, name: str) -> bool:
        return looks_pickled(head) and not LegacyCheckpoint().claims(head, name)
