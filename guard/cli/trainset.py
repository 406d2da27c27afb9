"""Add, list or check training sets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, remark, say
from guard.cli._progress import watched
from guard.core.errors import InputError

if TYPE_CHECKING:
    from guard.core.manifest import Manifest
    from guard.core.trainset import TrainingSetFacts
    from guard.store.rows import TrainingSetRow

app = typer.Typer(
    rich_markup_mode=None, help="Manage training sets: the labelled images that taught a model."
)
_FORMS = (
    "An image folder, a .parquet or an .npz, a folder of such files, or s3://BUCKET/PREFIX/ of one "
    "of GUARD_TRAINSET_BUCKETS."
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name of the training set.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=_FORMS)],
    class_names: Annotated[
        str,
        typer.Option(
            help="Names of the classes in their order, comma-separated, or @FILE with one a line."
        ),
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Read a training set once, and remember it under this name with its digest."""
    from guard.cli._service import caller, open_upgraded
    from guard.flow import trainsets

    names, guard = _names(class_names), open_upgraded()
    who = caller(guard, named=False)
    with watched("trainset add") as progress:
        row = trainsets.add(guard, who, name, source, names, progress=progress)
    _print([row], form, one=True)
    return 0


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List the named training sets."""
    from guard.cli._service import open_service
    from guard.store import trainsets
    from guard.store.session import reading

    with reading(open_service().engine) as session:
        rows = trainsets.list_all(session)
    _print(rows, form)
    return 0


@app.command()
def check(
    source: Annotated[str, typer.Argument(metavar="NAME|SOURCE", help=f"A stored name. {_FORMS}")],
    cleanset: Annotated[str, typer.Option(help="A stored clean set's name, or its path.")],
    like: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="A model, or its folder: the set must be like it."),
    ] = None,
    max_images: Annotated[
        int, typer.Option(min=1, help="Of a larger set, a sample of this size is read.")
    ] = 1_000_000,
    form: FormatOption = Format.TABLE,
) -> int:
    """Read a training set, and print what a sift of it would find: counts, skipped, overlap."""
    from guard.cli._service import open_service
    from guard.flow import trainsets
    from guard.vetting.training_set import examine

    guard = open_service()
    manifest = None if like is None else _manifest(like)
    place = trainsets.source_of(guard, source)
    facts, images = trainsets.clean_images(guard, cleanset)
    size = (facts.channels, facts.height, facts.width)
    shape = size if manifest is None else manifest.input_size
    with watched("trainset check") as progress, guard.workspace() as folder:
        train = trainsets.read(
            guard, place, folder, shape=shape, max_images=max_images, progress=progress
        )
        found = examine(train, place, facts, images, manifest)
    if form is Format.JSON:
        print_json({**asdict(found.facts), "cleanset": asdict(facts), **found.counts})
    else:
        _describe(found.facts, found.counts)
    return 0


def _names(text: str) -> tuple[str, ...]:
    if text.startswith("@"):
        return tuple(Path(text[1:]).read_text(encoding="utf-8").splitlines())
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _manifest(path: Path) -> "Manifest":
    from guard.core.manifest import Manifest
    from guard.vetting.model_path import locate, manifest_bytes

    _, manifest = locate(path)
    if manifest is None:
        raise InputError(
            f"There is no config.json beside {path}; a model's is needed to compare with.",
            code="manifest_missing",
        )
    return Manifest.parse(manifest_bytes(manifest))


def _describe(facts: "TrainingSetFacts", counts: Mapping[str, int]) -> None:
    from guard.cli._render import print_table

    cells = list(zip(facts.class_names, facts.per_class, strict=True))
    print_table(("class", ">images"), cells, empty="")
    sampled = (
        f" (a sample of {facts.total:,})" if facts.images + facts.skipped < facts.total else ""
    )
    say(f"{facts.images:,} images{sampled} of {facts.width}x{facts.height}, digest {facts.digest}")
    if facts.classes_by:
        say(f"classes matched with the model's by {facts.classes_by}")
    say(f"{facts.skipped:,} skipped, {facts.duplicates:,} duplicates")
    say(
        f"{facts.overlap:,} are also in the clean set ({counts['overlap_exact']:,} exactly), "
        f"{counts['overlap_clean']:,} of its images are here"
    )
    if facts.conflicts:
        remark(f"{facts.conflicts:,} images have two labels in this set; one of them is wrong.")
    for fault in facts.faults:
        remark(f"skipped: {fault}")


def _print(rows: Sequence["TrainingSetRow"], form: Format, *, one: bool = False) -> None:
    if form is Format.JSON:
        plain = [asdict(row) for row in rows]
        print_json(plain[0] if one else plain)
        return
    from guard.cli._render import print_table

    columns = ("training set", "place", ">classes", ">images", ">skipped", ">conflicts", "digest")
    cells = [
        (
            row.name,
            row.uri,
            len(row.facts.class_names),
            row.facts.images,
            row.facts.skipped,
            row.facts.conflicts,
            row.facts.digest[:16],
        )
        for row in rows
    ]
    print_table(
        columns,
        cells,
        empty="There are no training sets; `guard trainset add NAME SOURCE` adds one.",
    )
