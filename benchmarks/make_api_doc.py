"""Write docs/api.md, the Python and HTTP APIs and the plug-in contracts; a test compares.

python -m benchmarks.make_api_doc
"""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel

from guard.api.app import ROUTES

DOCUMENT = Path(__file__).parents[1] / "docs" / "api.md"
COLUMNS = 88  # of a signature, before it is written an argument a line
HEAD = """# Python API, plug-in contracts and HTTP API

Made by `python -m benchmarks.make_api_doc` from docstrings; change nothing by hand. How to add a
plug-in step by step: [a detector](how-to/add-a-detector.md), [a defense](how-to/add-a-defense.md),
[a retrainer](how-to/add-a-retrainer.md),
[a format](how-to/add-a-format.md), [a publisher](how-to/add-a-publisher.md). What raises which
error: [troubleshooting](troubleshooting.md).
"""
HTTP = """## HTTP

With `Authorization: Bearer TOKEN` of a principal; errors are `application/problem+json`. What a
role may do: [operating](operating.md#who-may-act). `GET /openapi.json` is for programs.
"""
#: Title, then what stands under it, as module and name.
SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Functions",
        (
            ("guard", "load_model"),
            ("guard", "scan"),
            ("guard", "purify"),
            ("guard", "retrain"),
        ),
    ),
    ("What they return", (("guard.reports.report", "Report"),)),
    (
        "Detectors and defenses",
        (
            ("guard.detectors._base", "Detector"),
            ("guard.defenses._base", "Defense"),
            ("guard.core.evidence", "Finding"),
            ("guard.ml.cleanset", "CleanSet"),
            ("guard.ml.cleanset", "Labelled"),
        ),
    ),
    (
        "Retrainers",
        (
            ("guard.retrainers._base", "Retrainer"),
            ("guard.retrainers._base", "Retrained"),
            ("guard.core.retraining", "RetrainingFacts"),
        ),
    ),
    (
        "Formats",
        (
            ("guard.core.contracts", "Format"),
            ("guard.core.contracts", "Budget"),
            ("guard.core.contracts", "Header"),
            ("guard.core.contracts", "TensorInfo"),
        ),
    ),
    (
        "Publishers",
        (
            ("guard.core.contracts", "Publisher"),
            ("guard.core.contracts", "Receipt"),
            ("guard.core.contracts", "Served"),
            ("guard.core.contracts", "Smoke"),
        ),
    ),
)
_BLOCK = re.compile(r"(Args|Returns|Raises|Yields):$")
_ITEM = re.compile(r"([*\w, ]+): (.*)$")


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, names in SECTIONS:
        parts.append(f"## {title}\n")
        for module, name in names:
            parts.append("\n".join(_entry(module, name)).rstrip() + "\n")
    parts.append(HTTP)
    parts += [
        "\n".join(_route(route)).rstrip() + "\n"
        for part in ROUTES
        for route in part.router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    ]
    return "\n".join(parts)


def _route(route: APIRoute) -> Iterator[str]:
    """An HTTP route: what it does, what it takes, and what it answers with."""
    method = min(route.methods or {"GET"})
    yield f"### `{method} {route.path}`"
    yield ""
    yield from _prose(route.endpoint)
    for name, kind in get_type_hints(route.endpoint).items():
        if name != "return" and inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield f"Takes `{kind.__name__}`: {_members(kind)}."
            yield ""
    answer = route.response_model
    if inspect.isclass(answer) and issubclass(answer, BaseModel):
        status = route.status_code or 200
        yield f"Answers {status} with `{answer.__name__}`: {_members(answer)}."
        yield ""
    if route.responses:
        yield f"Refuses with {', '.join(map(str, sorted(route.responses)))}."


def _members(model: type[BaseModel]) -> str:
    return ", ".join(
        f"`{field.serialization_alias or name}`" for name, field in model.model_fields.items()
    )


def _entry(module: str, name: str) -> Iterator[str]:
    item = getattr(importlib.import_module(module), name)
    yield f"### `{module}.{name}`"
    yield ""
    if inspect.isclass(item):
        yield from _class(item)
    else:
        yield from _callable(name, item)


def _class(item: type) -> Iterator[str]:
    yield from _prose(item)
    fields = [field for field in _fields(item) if not field.name.startswith("_")]
    if fields:
        yield "| field | type | default |"
        yield "|---|---|---|"
        for field in fields:
            kind = _type(field.type).replace("|", r"\|")  # a table's own mark
            yield f"| `{field.name}` | `{kind}` | {_default(field)} |"
        yield ""
    for name, method in vars(item).items():
        public = not name.startswith("_") or name == "__call__"
        if public and inspect.isfunction(method) and method.__doc__:
            yield f"#### `{item.__name__}.{name}`"
            yield ""
            yield from _callable(name, method)


def _callable(name: str, item: Callable[..., Any]) -> Iterator[str]:
    yield "```python"
    yield _signature(name, item)
    yield "```"
    yield ""
    yield from _prose(item)


def _signature(name: str, item: Callable[..., Any]) -> str:
    signature = inspect.signature(item)
    parts, bare = [], False
    for place, argument in enumerate(signature.parameters.values()):
        if place == 0 and argument.name == "self":
            continue
        if argument.kind is argument.KEYWORD_ONLY and not bare:
            parts.append("*")
            bare = True
        text = argument.name
        if argument.annotation is not argument.empty:
            text += f": {_type(argument.annotation)}"
        if argument.default is not argument.empty:
            text += f" = {getattr(argument.default, '__name__', repr(argument.default))}"
        parts.append(text)
    back = f" -> {_type(signature.return_annotation)}"
    line = f"{name}({', '.join(parts)}){back}"
    if len(line) <= COLUMNS:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){back}"


def _fields(item: type) -> Sequence[Any]:
    return dataclasses.fields(item) if dataclasses.is_dataclass(item) else ()


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)  # a class by its own name


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory.__name__}()`"
    return "–"


def _prose(item: Any) -> Iterator[str]:
    """A docstring as Markdown: its blocks (Args, Raises...) become lists."""
    lines = (inspect.getdoc(item) or "").splitlines()
    inside = False
    for line in lines:
        if match := _BLOCK.match(line):
            inside = True
            yield f"**{match[1]}**"
            yield ""
        elif inside and line.startswith("    ") and not line.startswith("     "):
            text = line.strip()
            found = _ITEM.match(text)
            yield f"- `{found[1]}`: {found[2]}" if found else f"- {text}"
        elif inside and line.strip():
            yield f"  {line.strip()}"
        else:
            inside = inside and not line.strip()
            yield line
    yield ""


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
