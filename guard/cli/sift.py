"""Look for poison in the training set of one model; needs no service."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._output import (
    Format,
    FormatOption,
    print_json,
    quiet_stdout,
    remark,
    write_bytes,
    write_text,
)
from guard.cli._progress import watched
from guard.core.errors import InputError
from guard.core.plain import to_plain
from guard.core.sift import SIFT_EXIT_CODES, SiftReport

app = typer.Typer(rich_markup_mode=None)
ENDINGS = (".parquet", ".json", ".csv")


@app.command()
def sift(
    path: Annotated[
        Path,
        typer.Argument(help="A model file, or a folder with model.safetensors and config.json."),
    ],
    training_set: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="What taught it: a folder, a .parquet, an .npz, a stored name, or s3://BUCKET/"
            "PREFIX/.",
        ),
    ],
    cleanset: Annotated[
        str, typer.Option(help="A stored name, an image folder, a .parquet or an .npz.")
    ],
    policy: Annotated[
        Path | None, typer.Option(help="Policy TOML, or default, strict, ensemble.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A file for the suspects: .parquet, .json or .csv."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="A file for a page with the images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Look for poison in a model's training set, and print what the model does with it.

    Exits 0 if nobody is accused, which clears nothing, 1 if the set is poisoned, 2 if the sift
    could not look, and 5 if a person must.
    """
    for file in (out, html):
        _writable(file)
    if out is not None and out.suffix not in ENDINGS:
        raise InputError(f"--out takes a file that ends with {', '.join(ENDINGS)}.", code="bad_out")
    from guard import offline_sift

    with (
        watched("sift") as progress,
        quiet_stdout(),
        offline_sift.sifting(
            path,
            training_set,
            cleanset=cleanset,
            policy=policy,
            seed=seed,
            device=device,
            progress=progress,
        ) as found,
    ):
        report = found.report
        if out is not None:
            from guard.reports.suspects import suspects_file

            write_bytes(out, suspects_file(report, out.suffix))
        if html is not None:
            write_text(html, offline_sift.page(found))
    _print(report, form, out, html)
    return SIFT_EXIT_CODES[report.verdict]


def _writable(file: Path | None) -> None:
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise InputError(
            f"{file} cannot be written; name a file in a folder that exists.", code="bad_out"
        )


def _print(report: SiftReport, form: Format, *files: Path | None) -> None:
    if form is Format.JSON:
        print_json(to_plain(report))
    else:
        from guard.cli._sift_view import print_sift

        print_sift(report)
    for file in files:
        if file is not None:
            remark(f"{file} is written.")
