"""The published JSON Schemas, made from the dataclasses: `python -m tests.schemas` writes them.

`tests/test_schemas.py` fails where `docs/schemas/` is not what this makes, and holds every producer
against them.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from jsonschema import Draft202012Validator

from guard.api.answers import VERDICT_SCHEMA, VerdictDetail, WaiverDone
from guard.attest.statement import VERDICT_TYPE, Issue
from guard.core.evidence import (
    Accuracy,
    AsrEstimate,
    CleanSetFacts,
    Finding,
    GraphQuality,
    Outcome,
    PairSetFacts,
    Target,
)
from guard.core.hooks import ALL_FIELDS, FIELDS, EventType
from guard.core.modality import Modality
from guard.core.notes import Attempt
from guard.core.plain import LEFT_OUT, Digest, json_key, may_be_missing, types_of
from guard.core.purification import PurificationFacts
from guard.core.retraining import RetrainingFacts
from guard.core.verdict import VerdictFacts
from guard.notify.forms import SCHEMA as NOTIFICATION_SCHEMA
from guard.reports.report import SCHEMA as REPORT_SCHEMA

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
WAIVER_SCHEMA = "https://registry-guard.dev/schemas/waiver/v1"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]
_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time", "pattern": "Z$"},
    Any: {},
}


def schema_of(kind: Any, *, strict: bool = True) -> Schema:  # noqa: PLR0911 - a case a kind of type
    """The schema of a type of `guard.core`, as `guard.core.plain` writes it.

    Without `strict` a number may be null: reports write so what is not finite.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**schema_of(arguments[0], strict=strict), **arguments[1].schema}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(one, strict=strict) for one in arguments]}
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return {"type": "array", "items": schema_of(arguments[0], strict=strict)}
        places = [schema_of(one, strict=strict) for one in arguments]
        return {"type": "array", "prefixItems": places, "items": False, "minItems": len(places)}
    if is_dataclass(kind):
        return object_of(kind, strict=strict)
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], strict=strict)}
    if kind is type(None):
        return {"type": "null"}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [str(one) for one in kind]}
    if kind is float and not strict:
        return {"type": ["number", "null"]}
    return dict(_SCALARS[kind])


def object_of(kind: Any, *, strict: bool = True, without: tuple[str, ...] = ()) -> Schema:
    """The schema of a dataclass without some of its fields."""
    own = [field for field in fields(kind) if field.name not in without]
    return {
        "type": "object",
        "title": kind.__name__,
        "properties": {
            json_key(field): schema_of(types_of(kind)[field.name], strict=strict) for field in own
        },
        "required": [json_key(field) for field in own if not may_be_missing(field)],
    }


def joined(title: str, *parts: Schema) -> Schema:
    """One object with the properties of all; of two with one name, the last."""
    properties, required = Schema(), dict[str, None]()
    for part in parts:
        properties |= part["properties"]
        required |= dict.fromkeys(part.get("required", ()))
    return {
        "type": "object",
        "title": title,
        "properties": properties,
        "required": list(required),
    }


def _document(name: str, about: str, body: Schema) -> Schema:
    named: Schema = body.pop("$defs", {})
    body = {key: _hoisted(value, named) for key, value in body.items()}
    return {"$schema": DIALECT, "$id": name, "description": about, **body, "$defs": named}


def _hoisted(schema: Any, named: Schema) -> Any:
    """The schema with a reference in the place of each titled object, which goes to `named`."""
    if isinstance(schema, list):
        return [_hoisted(one, named) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _hoisted(value, named) for key, value in schema.items()}
    title = made.get("title")
    # Two objects of one title may differ: then the second one stays where it is.
    if "properties" in made and isinstance(title, str) and named.setdefault(title, made) == made:
        return {"$ref": f"#/$defs/{title}"}
    return made


def predicate() -> Schema:
    """Of the `predicate` in a signed verdict."""
    later: Schema = {"properties": {"not_covered": schema_of(tuple[str, ...])}}
    body = joined("Verdict predicate", object_of(Issue), object_of(VerdictFacts), later)
    about = (
        "The predicate of a signed verdict; fields that are not required are newer than v1, "
        "where a natural trigger's rate is in `asr`."
    )
    return _document(VERDICT_TYPE, about, body)


def report() -> Schema:
    """Of `guard scan`, `purify`, `report` and `review show` with `--format json`."""
    shown = object_of(VerdictFacts, strict=False, without=("evidence", "parent", "purification"))
    # A report writes all of them, but the sift only where a training set was named, and the
    # modality only where it is another one than images, the commitment only where a battery was
    # drawn.
    left_out = {"training_set", "modality", "battery", "contracts"}
    shown["required"] = [name for name in shown["properties"] if name not in left_out]
    rest = {
        "schema": {"const": REPORT_SCHEMA},
        "digest": schema_of(Digest),
        "name": {"type": "string"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "accuracy": {"type": ["number", "null"]},
        "not_covered": schema_of(tuple[str, ...]),
        "methods": {"type": "array", "items": _method()},
        "seconds": {"type": ["number", "null"]},
        "policy": {"type": "string"},
        "manifest": {"type": ["object", "null"]},
        "cleanset": {"anyOf": [schema_of(CleanSetFacts), _pair_set(), {"type": "null"}]},
        "evidence": {"type": "array", "items": _evidence()},
        "triggers": {"type": "array", "items": _trigger()},
    }
    always: Schema = {"properties": rest, "required": list(rest)}
    own: Schema = {
        "properties": {
            "candidates": {"type": "array", "items": _candidate()},
            "retraining": schema_of(RetrainingFacts, strict=False),
            "source": {"type": "string"},
            "scan_id": {"type": "string"},
            "verdict_id": {"type": "string"},
            "issued_at": schema_of(datetime),
            "expires_at": schema_of(datetime),
            "expired": {"type": "boolean"},
        }
    }
    body = joined("Report", shown, always, {"properties": _repair()}, own)
    body["dependentRequired"] = {"defense": sorted(set(_repair()) - _left_out(PurificationFacts))}
    return _document(REPORT_SCHEMA, "A report on one scan or one purification.", body)


def verdict() -> Schema:
    """Of `GET /verdicts/{id}`."""
    body = VerdictDetail.model_json_schema(mode="serialization")
    body["properties"]["schema"] = {"const": VERDICT_SCHEMA}
    body["properties"]["facts"] = {"anyOf": [object_of(VerdictFacts), {"type": "null"}]}
    body["title"] = "Verdict answer"
    body["required"] = [*body["required"], "schema"]
    body.pop("description", None)
    return _document(VERDICT_SCHEMA, "What the API answers about one verdict.", body)


def waiver() -> Schema:
    """Of `GET /waivers/{id}`, and of `guard waive` with `--format json`."""
    body = WaiverDone.model_json_schema(mode="serialization")
    body["required"].remove("decided_anew")
    body["properties"]["state"] = {
        "enum": ["waiting", "in force", "revoked", "expired", "void"],
    }
    body["title"] = "Waiver"
    body.pop("description", None)
    return _document(WAIVER_SCHEMA, "A waiver of one finding, and how it stands.", body)


def _repair() -> Schema:
    """The properties that only a report on a repaired model has."""
    facts = object_of(
        PurificationFacts,
        strict=False,
        without=("version", "acc_before", "acc_after", "seconds", "swapped", "start"),
    )["properties"]
    for name in ("relearned", "woken"):
        facts[name]["items"]["properties"]["lead"] = {"type": ["number", "null"]}
    recalls = {"type": "array", "items": {"type": ["number", "null"]}}
    return {
        **facts,
        "defense_version": {"type": "integer"},
        "acc_before": {"type": ["number", "null"]},
        "acc_after": {"type": ["number", "null"]},
        "acc_before_per_class": recalls,
        "acc_after_per_class": recalls,
        "replayed_before": schema_of(tuple[AsrEstimate, ...], strict=False),
    }


def _left_out(kind: Any) -> set[str]:
    """The keys that are not written where a field has its default."""
    return {json_key(field) for field in fields(kind) if field.metadata == LEFT_OUT}


def _method() -> Schema:
    properties = {
        "name": {"type": "string"},
        "version": {"type": "integer"},
        "seconds": {"type": ["number", "null"]},
        "outcome": schema_of(Outcome),
    }
    return {
        "type": "object",
        "title": "Method",
        "properties": properties,
        "required": list(properties),
    }


def _pair_set() -> Schema:
    kind: Schema = {"properties": {"kind": {"const": str(Modality.GRAPHS)}}, "required": ["kind"]}
    return joined("PairSetFacts", kind, object_of(PairSetFacts))


def _quality() -> Schema:
    kind: Schema = {"properties": {"kind": {"const": str(Modality.GRAPHS)}}, "required": ["kind"]}
    return joined("GraphQuality", kind, object_of(GraphQuality, strict=False))


def _evidence() -> Schema:
    finding = object_of(Finding, strict=False, without=("trigger",))
    properties = {
        "artifact": {"type": "string"},
        "method": {"type": "string"},
        "version": {"type": "integer"},
        "parameters": {"type": "object"},
        "cleanset": {"type": "string"},
        "seed": {"type": "integer"},
        "outcome": schema_of(Outcome),
        "families": schema_of(tuple[str, ...]),
        "findings": {"type": "array", "items": finding},
        "reason": {"type": "string"},
        "seconds": {"type": ["number", "null"]},
    }
    return {
        "type": "object",
        "title": "Evidence",
        "properties": {
            **properties,
            "accuracy": schema_of(Accuracy, strict=False),
            "quality": _quality(),
            "blobs": schema_of(Mapping[str, Digest]),
            "cost": schema_of(Mapping[str, float]),
            "over_budget": {"type": "number"},
        },
        "required": list(properties),
    }


def _trigger() -> Schema:
    properties = {
        "family": {"type": "string"},
        "target": schema_of(Target),
        "digest": schema_of(Digest | None),
    }
    return {
        "type": "object",
        "title": "Trigger",
        "properties": properties,
        "required": list(properties),
    }


def _candidate() -> Schema:
    found: Schema = {
        "properties": {
            "parameters": {"type": "object"},
            "reasons": schema_of(tuple[str, ...]),
            "acc_after": {"type": ["number", "null"]},
            "seconds": {"type": ["number", "null"]},
            "evidence": {"type": "array", "items": _evidence()},
        }
    }
    return joined("Candidate", object_of(Attempt, strict=False), found)


def notification() -> Schema:
    """Of what a webhook gets."""
    data: Schema = {
        "type": "object",
        "title": "NotificationData",
        "properties": {name: {"type": "string"} for name in ALL_FIELDS},
        "required": ["sentence"],
    }
    body: Schema = {
        "type": "object",
        "title": "Notification",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "minLength": 1},
            "type": {"enum": [str(one) for one in EventType]},
            "subject": {"type": "string", "minLength": 1},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "dataschema": {"const": NOTIFICATION_SCHEMA},
            "data": data,
        },
    }
    body["required"] = list(body["properties"])
    body["allOf"] = [
        {
            "if": {"properties": {"type": {"const": str(kind)}}},
            "then": {"properties": {"data": {"required": list(names)}}},
        }
        for kind, names in FIELDS.items()
    ]
    about = "A CloudEvent that the guard sends; `guard.core.hooks` names the types."
    return _document(NOTIFICATION_SCHEMA, about, body)


MADE = {
    "notification.schema.json": notification,
    "verdict-predicate.schema.json": predicate,
    "report.schema.json": report,
    "verdict.schema.json": verdict,
    "waiver.schema.json": waiver,
}


def closed(schema: Any) -> Any:
    """The same schema, but a titled object may have no property that the schema does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made and "title" in made and isinstance(made["title"], str):
        made["additionalProperties"] = False
    return made


def faults(name: str, document: Any) -> list[str]:
    """Where a document breaks a published schema, or has a field that the schema does not name."""
    schema = closed(json.loads((FOLDER / name).read_text()))
    Draft202012Validator.check_schema(schema)
    plain = json.loads(json.dumps(document, allow_nan=False))
    found = Draft202012Validator(schema).iter_errors(plain)
    return [f"{error.json_path}: {error.message}" for error in found]


def text_of(name: str) -> str:
    """A schema as it is published."""
    return json.dumps(MADE[name](), indent=2) + "\n"


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in MADE:
        (FOLDER / name).write_text(text_of(name))


if __name__ == "__main__":
    main()
