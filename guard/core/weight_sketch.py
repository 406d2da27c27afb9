"""Compare two networks by short sketches of their weights (made by `guard.ml.weight_sketches`)."""

import base64
import struct
from math import sqrt

LENGTH = 64  # numbers in a sketch
_FORM = f"<{LENGTH}f"


def written(numbers: list[float]) -> str:
    """The text of a sketch.

    Args:
        numbers: `LENGTH` of them.
    """
    return base64.b64encode(struct.pack(_FORM, *numbers)).decode()


def distance(one: str, other: str) -> float:
    """The length of the difference of two networks' weights, as a share of the first one's length.

    It is an estimate, mostly within a fifth of the true one, and 0 only where all weights are the
    same. Networks of other shapes or names are far from each other.
    """
    first, second = _read(one), _read(other)
    length = sqrt(sum(value * value for value in first))
    apart = sqrt(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)))
    return apart / length if length else float(apart > 0)


def _read(text: str) -> tuple[float, ...]:
    return struct.unpack(_FORM, base64.b64decode(text))
