"""Official schemas of open formats, vendored in `vendor/`, and what they find wrong."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import xmlschema
from jsonschema import Draft4Validator, Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

VENDOR = Path(__file__).parent / "vendor"
#: Names under which the CycloneDX schema refers to its neighbours.
_NEIGHBOURS = ("spdx", "jsf-0.82")


def sarif_faults(log: Any) -> list[str]:
    """What the schema of SARIF 2.1.0 finds wrong with a log."""
    return _faults(_sarif(), log)


def bom_faults(bom: Any) -> list[str]:
    """What the schema of CycloneDX 1.6 finds wrong with a BOM."""
    return _faults(_cyclonedx(), bom)


def junit_faults(document: str) -> list[str]:
    """What the Jenkins schema finds wrong with a JUnit document."""
    return [str(error.reason) for error in _junit().iter_errors(document)]


def _faults(validator: Any, document: Any) -> list[str]:
    plain = json.loads(json.dumps(document, allow_nan=False))
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in validator.iter_errors(plain)
    ]


def _load(name: str) -> Any:
    return json.loads((VENDOR / name).read_text())


@cache
def _sarif() -> Any:
    schema = _load("sarif-2.1.0-rtm.5.json")
    return Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER)


@cache
def _cyclonedx() -> Any:
    schema = _load("bom-1.6.schema.json")
    base = schema["$id"].rpartition("/")[0]
    registry: Registry[Any] = Registry().with_resources(
        (
            f"{base}/{name}.SNAPSHOT.schema.json",
            DRAFT7.create_resource(_load(f"{name}.schema.json")),
        )
        for name in _NEIGHBOURS
    )
    checker = Draft7Validator.FORMAT_CHECKER
    return Draft7Validator(schema, registry=registry, format_checker=checker)


@cache
def _junit() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(VENDOR / "junit-10.xsd")
