"""The grammar of tensor names.

It allows the names that PyTorch gives to parameters, and nothing that could harm a terminal or a
path.
"""

import re

from guard.core.contracts import Budget
from guard.formats._bytes import reject, show

_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*")


def check_name(name: str, *, budget: Budget) -> None:
    """Refuse a name that is not ASCII letters, digits and `_`, joined by single `.` or `-`.

    Raises:
        ArtifactRejected: `name_too_long` or `name_bad`.
    """
    if len(name) > budget.name_bytes:
        raise reject(
            "name_too_long",
            f"Tensor name {show(name)} is longer than {budget.name_bytes} characters.",
        )
    if not _NAME.fullmatch(name):
        raise reject(
            "name_bad",
            f"Tensor name {show(name)} must be letters, digits and _, joined by single dots or -.",
        )
