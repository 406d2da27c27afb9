"""Frozen dataclasses as plain JSON values and back, strictly, by one writer and one reader.

The metadata of a field hold its name in JSON and whether it may be missing:

* `called("woken")`: the field's name in JSON, where it is not the attribute's;
* `ADDED`: the field is newer than stored or signed data; where JSON lacks it, its default counts;
* `LEFT_OUT`: as `ADDED`, and the field is not written where it has its default.

Every other field is required when it is read, whether it has a default in Python or not. Keys that
no field knows are ignored: a newer release may have written them.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin

from guard.core.digests import is_digest

T = TypeVar("T")

_KEY, _OPTIONAL, _OMIT = "json key", "may be missing", "left out by default"


@dataclass(frozen=True, eq=False)
class Check:
    """A condition on a value beyond its type: a test, its description, and its JSON Schema."""

    holds: Callable[[Any], bool]
    wanted: str
    schema: Mapping[str, Any]


def _is_gaps(value: Any) -> bool:
    sentence = value.get("sentence")
    return type(value.get("measured")) is bool and isinstance(sentence, str) and bool(sentence)


def _is_basis(value: Any) -> bool:
    needed = BASES.get(str(value.get("kind")))
    return needed is not None and all(
        isinstance(value.get(name), str) and value[name] for name in needed
    )


#: Who or what a verdict rests on, and what must be named with it.
BASES: Mapping[str, tuple[str, ...]] = {
    "policy": (),
    "review": ("reviewer", "reason", "reviewed_verdict"),
    "reuse": ("verdict",),
    "extension": ("verdict",),
}


Text = Annotated[str, Check(bool, "a text that is not empty", {"minLength": 1})]
Digest = Annotated[str, Check(is_digest, "a SHA-256", {"pattern": "^[0-9a-f]{64}$"})]
#: What was measured for a policy (`guard.policy.known_gaps`).
KnownGaps = Annotated[
    Mapping[str, Any],
    Check(
        _is_gaps,
        "known gaps that state whether they were measured",
        {
            "required": ["measured", "sentence"],
            "properties": {
                "measured": {"type": "boolean"},
                "sentence": {"type": "string", "minLength": 1},
            },
        },
    ),
]
#: Who decided: `{"kind": "policy"}`, or `{"kind": "review"}` with `reviewer`, `reason` and
#: `reviewed_verdict` (and `renews`, where a re-scan found nothing else than the reviewer saw);
#: `reuse` and `extension` name the `verdict` in force that they rest on.
Basis = Annotated[
    Mapping[str, Any],
    Check(
        _is_basis,
        "a policy's or a review's basis",
        {
            "required": ["kind"],
            "properties": {"kind": {"enum": list(BASES)}},
            "allOf": [
                {
                    "if": {"properties": {"kind": {"const": kind}}},
                    "then": {"required": list(needed)},
                }
                for kind, needed in BASES.items()
                if needed
            ],
        },
    ),
]


#: Metadata of a field that older JSON lacks.
ADDED: Mapping[str, Any] = {_OPTIONAL: True}
#: Metadata of a field that is written only where it differs from its default.
LEFT_OUT: Mapping[str, Any] = {_OPTIONAL: True, _OMIT: True}


def called(name: str) -> Mapping[str, Any]:
    """Metadata of a field whose name in JSON is `name`."""
    return {_KEY: name}


def json_key(field: Field[Any]) -> str:
    """The name of a field in JSON."""
    return str(field.metadata.get(_KEY, field.name))


def may_be_missing(field: Field[Any]) -> bool:
    """Whether JSON may lack a field."""
    return bool(field.metadata.get(_OPTIONAL, False))


@cache
def types_of(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass with their types, `Annotated` included."""
    return typing.get_type_hints(kind, include_extras=True)


def to_plain(value: Any) -> Any:
    """`value` as dictionaries, lists, strings and numbers."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return _fields_to_plain(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def _fields_to_plain(value: Any) -> dict[str, Any]:
    return {
        json_key(field): to_plain(getattr(value, field.name))
        for field in fields(value)
        if not (field.metadata.get(_OMIT) and getattr(value, field.name) == field.default)
    }


def from_plain(kind: type[T], data: Any) -> T:
    """The inverse of `to_plain`.

    Raises:
        KeyError: `data` lacks a required field.
        TypeError: a field has another type.
        ValueError: a field has a value that its type does not allow.
    """
    made: T = _read(kind, data, kind.__name__)
    return made


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _read(arguments[0], data, where)
        if not arguments[1].holds(value):
            raise TypeError(f"{where} must be {arguments[1].wanted}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, data, where)
    if origin is tuple:
        return _read_tuple(arguments, data, where)
    if hasattr(kind, "from_dict"):
        return kind.from_dict(_mapping(data, where))
    if is_dataclass(kind):
        return _read_fields(kind, _mapping(data, where))
    if kind is Any or (origin is not None and issubclass(origin, Mapping)):
        return data if kind is Any else _mapping(data, where)
    return _read_scalar(kind, data, where)


def _read_fields(kind: Any, data: Mapping[str, Any]) -> Any:
    hints, values = types_of(kind), {}
    for field in fields(kind):
        name = json_key(field)
        if name in data:
            values[field.name] = _read(hints[field.name], data[name], f"{kind.__name__}.{name}")
        elif not may_be_missing(field):
            raise KeyError(f"{kind.__name__} lacks {name}")
    return kind(**values)


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    left = [kind for kind in kinds if kind is not type(None)]
    if len(left) == 1:
        return _read(left[0], data, where)
    # Several types in a union are plain ones: a target class is an int, a str or None.
    if type(data) not in left:
        raise TypeError(f"{where} must be one of {', '.join(kind.__name__ for kind in left)}")
    return data


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise TypeError(f"{where} must be a list")
    if kinds[-1] is Ellipsis:
        return tuple(_read(kinds[0], item, where) for item in data)
    return tuple(_read(kind, item, where) for kind, item in zip(kinds, data, strict=True))


def _read_scalar(kind: Any, data: Any, where: str) -> Any:
    if issubclass(kind, StrEnum):
        return kind(data)
    if kind is datetime:
        return _time(data, where)
    if kind is float and type(data) in (int, float):
        return float(data)
    if type(data) is not kind:
        raise TypeError(f"{where} must be of type {kind.__name__}")
    return data


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with a Z.

    Raises:
        ValueError: a time without a zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a timezone cannot be signed")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(data: Any, where: str) -> datetime:
    if not isinstance(data, str) or not data.endswith("Z"):
        raise TypeError(f"{where} must be a UTC time")
    return datetime.fromisoformat(data)


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{where} must be an object")
    return data
