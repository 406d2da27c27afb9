"""Add, list or check clean sets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli._output import Format, FormatOption, print_json, quiet_stdout
from guard.core.errors import InputError
from guard.core.plain import to_plain

if TYPE_CHECKING:
    from guard.core.evidence import AnyCleanSet

app = typer.Typer(
    rich_markup_mode=None,
    help="Manage clean sets: data that you trust.",
)
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="An image folder (a sub-folder a class), a .parquet (of images, or of text and "
        "smiles) or an .npz; or s3://BUCKET/KEY.",
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Seed of the one split into search, calibration and hold-out.")
]
SCHEME = "s3://"


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name of the clean set.")],
    source: SourceArgument,
    seed: SeedOption = 0,
    form: FormatOption = Format.TABLE,
) -> int:
    """Check a clean set, split it once, and store it by digest under this name."""
    from guard.cli._service import caller, open_upgraded
    from guard.flow import cleansets

    facts, data = _curated(source, name, seed)
    # On a new machine clean sets are often added before any service runs, so make the schema rather
    # than require it.
    guard = open_upgraded()
    cleansets.add(guard, caller(guard, named=False), facts, data)
    _print([facts], form, one=True)
    return 0


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List the stored clean sets; of several with one name, the first is in use."""
    from guard.cli._service import open_service
    from guard.store import cleansets
    from guard.store.session import reading

    with reading(open_service().engine) as session:
        rows = cleansets.list_all(session)
    _print(rows, form)
    return 0


@app.command()
def check(source: SourceArgument, seed: SeedOption = 0, form: FormatOption = Format.TABLE) -> int:
    """Check a clean set and print its facts, without storing it."""
    facts, _ = _curated(source, Path(source).stem or "clean set", seed)
    _print([facts], form, one=True)
    return 0


def _curated(source: str, name: str, seed: int) -> tuple["AnyCleanSet", bytes]:
    from guard.cleansets import curated_source

    with quiet_stdout(), _local(source) as path:
        data, facts = curated_source(path, name, seed)
    return facts, data


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """The path itself, or one object in a private temporary file with the object's suffix.

    The readers choose the file type by that suffix.
    """
    if not source.startswith(SCHEME):
        yield Path(source)
        return
    from guard.cli._service import open_service

    bucket_name, _, key = source.removeprefix(SCHEME).partition("/")
    if not bucket_name or not key or key.endswith("/"):
        raise InputError(
            "Name an object as s3://BUCKET/KEY; an image folder must be local.",
            code="bad_object",
        )
    guard = open_service()
    bucket = guard.make_bucket(bucket_name)
    facts = bucket.head(key)
    if facts.size > guard.settings.max_upload_bytes:
        raise InputError(
            f"{source} is larger than {guard.settings.max_upload_bytes} bytes.", code="too_large"
        )
    with guard.workspace() as folder:
        path = folder / f"source{PurePosixPath(key).suffix}"
        with path.open("wb") as file:
            file.writelines(bucket.stream(facts))
        yield path


def _print(rows: Sequence["AnyCleanSet"], form: Format, *, one: bool = False) -> None:
    if form is Format.JSON:
        print_json(to_plain(rows[0]) if one else [to_plain(row) for row in rows])
        return
    from guard.cli._render import print_table

    columns = (
        "clean set",
        ">classes",
        ">channels",
        "size",
        ">fewest per class",
        ">search",
        ">calibration",
        ">hold-out",
        "sha256",
    )
    cells = [
        (
            row.name,
            *_shape(row),
            row.search,
            row.calibration,
            row.holdout,
            row.digest[:16],
        )
        for row in rows
    ]
    print_table(
        columns, cells, empty="There are no clean sets; `guard cleanset add NAME SOURCE` adds one."
    )


def _shape(row: "AnyCleanSet") -> tuple[Any, ...]:
    """Classes, channels, size and fewest images of a class; pairs have none of these."""
    from guard.core.evidence import CleanSetFacts

    if not isinstance(row, CleanSetFacts):
        return "", "", "pairs", ""
    return row.classes, row.channels, f"{row.height}x{row.width}", row.per_class
