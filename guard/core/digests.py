"""SHA-256 names of bytes and of JSON values."""

import hashlib
import json
import re
from typing import Any

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    """Whether `text` is a lower-case hexadecimal SHA-256."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def sha256(data: bytes) -> str:
    """The lower-case hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, UTF-8, NaN refused.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def json_digest(value: Any) -> str:
    """SHA-256 of `canonical_json(value)`."""
    return sha256(canonical_json(value))
