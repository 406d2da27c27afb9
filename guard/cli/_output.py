"""Output: JSON documents and lines on stdout, remarks on stderr, files whole or not at all."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from guard.core.errors import InputError
from guard.core.text import printable


class Format(StrEnum):
    """The output formats of lists and actions."""

    TABLE = "table"
    JSON = "json"


class ReportFormat(StrEnum):
    """The output formats of reports."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"
    SARIF = "sarif"
    JUNIT = "junit"
    CYCLONEDX = "cyclonedx"
    CARD = "card"


class StatusFormat(StrEnum):
    """The output formats of lists of scans."""

    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"


#: What other tools read; `--out` writes it into a file, and stdout keeps a line for people.
EXCHANGED = frozenset(ReportFormat) - {ReportFormat.TABLE, ReportFormat.JSON, ReportFormat.HTML}
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print the answer.")]
ReportFormatOption = Annotated[
    ReportFormat, typer.Option("--format", "-f", help="How to print the answer.")
]
StatusFormatOption = Annotated[
    StatusFormat, typer.Option("--format", "-f", help="How to print the answer.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="The file; for every format but table and json.")
]
Also = Sequence[tuple[ReportFormat, Path]]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORMAT=FILE",
        help="Also write this file, such as sarif=guard.sarif; may be given repeatedly.",
    ),
]


def print_json(value: Any) -> None:
    """Print one document, in ASCII only, so that no name in it can control a terminal."""
    typer.echo(to_json(value))


def print_json_line(value: Any, *, err: bool = False) -> None:
    """Print one line of a stream of documents."""
    typer.echo(_ascii(json.dumps(value, allow_nan=False, default=_plain)), err=err)


def to_json(value: Any) -> str:
    """Indented JSON; NaN is refused, since it would be a fault of the guard."""
    return _ascii(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def say(text: object) -> None:
    """Print one line of the answer on stdout."""
    typer.echo(printable(text))


def say_document(text: str) -> None:
    """Print a document whose text is harmless already."""
    typer.echo(text)


def remark(text: object) -> None:
    """Print one line that is not part of the answer on stderr."""
    typer.echo(printable(text), err=True)


def check_target(form: ReportFormat, out: Path | None) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        InputError: HTML was requested without a file, or the file's folder does not exist.
    """
    if form is ReportFormat.HTML and out is None:
        raise InputError("--format html needs --out FILE.", code="no_out")
    if form in {ReportFormat.TABLE, ReportFormat.JSON} and out is not None:
        raise InputError(
            "--out FILE goes with every --format but table and json, which print on stdout.",
            code="no_html",
        )
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InputError(
            f"{out} cannot be written; name a file in a folder that exists.", code="bad_out"
        )


def also_wanted(pairs: Sequence[str] | None) -> Also:
    """The further files that a report is to be written to, checked before any work is done.

    Raises:
        InputError: one is not FORMAT=FILE, has no such format, or cannot be written.
    """
    found = []
    for pair in pairs or ():
        name, _, file = pair.partition("=")
        if name not in set(ReportFormat) - {ReportFormat.TABLE} or not file:
            raise InputError(
                f"--also {pair!r} is not FORMAT=FILE, with any format but table.", code="bad_also"
            )
        form = ReportFormat(name)
        check_target(ReportFormat.HTML, Path(file))
        found.append((form, Path(file)))
    return found


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `write_text` does."""
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what libraries print inside the block to stderr; stdout carries the answer alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _ascii(text: str) -> str:
    # DEL is the only ASCII control character that json does not escape.
    return text.replace("\x7f", "\\u007f")
