"""Bare pickles; recognised and refused.

They are whole modules, joblib dumps and what torch.save wrote before version 1.6.
"""

from guard.formats._pickle_scan import looks_pickled
from guard.formats._refused import Refused


class PickleFile(Refused):
    """A pickle is a program, so it is not read, not even in the jail."""

    code = "pickle"
    thing = (
        "a bare pickle (an old-style torch.save or another Python dump), a program that runs "
        "when it is loaded"
    )

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return looks_pickled(head)
