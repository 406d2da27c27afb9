"""Parameters of a method as a person gives them, checked against the fields of its dataclass."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from guard.core.errors import InputError

#: What a field of each type takes. A float field takes a whole number as well, but no number field
#: takes true or false.
_TAKES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a string"}


def checked(cls: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, once its names and types are checked against the fields of `cls`.

    The range of a value is checked by `cls` itself.

    Args:
        cls: a frozen dataclass of plain parameters: a detector's or a defense's class.

    Raises:
        InputError: a name that is no parameter (the sentence lists those that are), or a value of
            another type.
    """
    known = {field.name: _type(field.type) for field in fields(cls)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            listed = ", ".join(f"{key} ({kind})" for key, kind in sorted(known.items())) or "none"
            raise InputError(
                f"{cls.__name__} has no parameter {name!r}; it has: {listed}.",
                code="bad_parameters",
            )
        kind = known[name]
        if not _fits(kind, value):
            raise InputError(
                f"{cls.__name__}'s parameter {name} is {_TAKES[kind]}, not {value!r}; "
                f"its default is {_default(cls, name)!r}.",
                code="bad_parameters",
            )
        # A whole number given for a float is recorded as a float.
        found[name] = float(value) if kind == "float" else value
    return found


def _fits(kind: str, value: Any) -> bool:
    if kind not in _TAKES:
        return True
    if kind == "float":
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # False for NaN
    return type(value).__name__ == kind


def _type(declared: Any) -> str:
    """The name of a field's type, whether it was written as a type or as text."""
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


def _default(cls: Any, name: str) -> Any:
    return next(field.default for field in fields(cls) if field.name == name)
