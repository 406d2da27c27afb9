"""Decode a safetensors header's JSON without trusting its size, depth, keys or numbers."""

import json
import re
from typing import Any

from guard.core.contracts import Budget
from guard.formats._bytes import reject, show

MAX_DEPTH = 3  # header -> tensor -> shape
# Possessive quantifiers: linear time, no stack.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_OUTLINE = bytes(byte for byte in range(256) if byte not in b"[]{}:")
_SPARE_KEYS = 2000  # for the metadata, whose own limit comes later


class _Repeated(ValueError):
    """A key occurs twice in one object."""


def decode_header(raw: bytes, *, budget: Budget) -> dict[str, Any]:
    """The JSON object in `raw`, whose values the caller still has to check.

    Raises:
        ArtifactRejected: it is not UTF-8 or not a JSON object, is too deep, repeats a key, or holds
            a number that is not an integer.
    """
    if raw[:1] != b"{":
        raise reject(
            "header_start", "The header does not start with '{'; write the file with safetensors."
        )
    _check_outline(raw, budget)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_no_repeats,
            parse_constant=_no_number,
            parse_float=_no_number,
        )
    except UnicodeDecodeError as error:
        raise reject(
            "header_not_utf8", "The header is not UTF-8; write the file with safetensors."
        ) from error
    except _Repeated as error:
        raise reject(
            "duplicate_key", f"The header names {show(str(error))} twice; name each tensor once."
        ) from error
    except (ValueError, RecursionError) as error:
        raise reject(
            "header_not_json", "The header is not valid JSON; write the file with safetensors."
        ) from error
    if not isinstance(value, dict):
        raise reject(
            "header_not_json", "The header is not a JSON object; write the file with safetensors."
        )
    return value


def _check_outline(raw: bytes, budget: Budget) -> None:
    """Count keys and brackets outside strings before the decoder builds an object for each one."""
    outline = _STRING.sub(b"", raw).translate(None, _NO_OUTLINE)
    if outline.count(b":") > 4 * budget.tensors + _SPARE_KEYS:
        raise reject(
            "too_many_keys", f"The header has more keys than {budget.tensors} tensors need."
        )
    brackets = outline.translate(None, b":")
    if brackets.count(b"{") > budget.tensors + 2 or len(brackets) > 6 * (budget.tensors + 2):
        raise reject("too_many_tensors", f"The header lists more than {budget.tensors} tensors.")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise reject("header_too_deep", f"The header nests deeper than {MAX_DEPTH} levels.")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Repeated(key)
        found[key] = value
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")
