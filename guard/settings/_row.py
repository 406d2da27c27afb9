"""One setting as a field of a dataclass."""

import math
from dataclasses import field
from pathlib import Path
from typing import Any

#: A path that is filled in from others.
UNSET = Path()


def row(
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float = -math.inf,
    derived: str = "",
    shown: bool = True,
) -> Any:
    """One setting with its default and help.

    `derived` describes the value of an unset setting; `shown=False` keeps passwords out of repr.
    """
    return field(
        default=default,
        repr=shown,
        metadata={"help": text, "unit": unit, "low": low, "derived": derived},
    )
