"""Look for poison in the training set of one model: here, or by the service."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._options import given, without
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
COMMAND = "sift"
ENDINGS = (".parquet", ".json", ".csv")
_Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A model file, or a folder with model.safetensors and config.json; with --submit also "
        "a digest, a name of uploads, or a scan.",
    ),
]
_Set = Annotated[
    str | None,
    typer.Argument(
        metavar="SET",
        help="What taught it: a folder, a .parquet, an .npz, a stored name, or s3://BUCKET/PREFIX/;"
        " with --submit one of the last two, and that of config.json where none is given.",
    ),
]
_CleanSet = Annotated[
    str | None,
    typer.Option(
        help="A stored name, an image folder, a .parquet or an .npz; with --submit a stored name, "
        "by default that of the model's scan."
    ),
]
_Policy = Annotated[
    Path | None, typer.Option(help="Policy TOML, or default, copies, strict, ensemble.")
]
_Out = Annotated[
    Path | None, typer.Option(help="A file for the suspects: .parquet, .json or .csv.")
]
_Html = Annotated[Path | None, typer.Option(help="A file for a page with the images.")]
_Seed = Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")]
_Device = Annotated[
    str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
]
_Submit = Annotated[
    bool, typer.Option("--submit", help="Have the service do it, by its policy's [training_set].")
]
_Digest = Annotated[
    str | None,
    typer.Option(metavar="SHA256", help="With --submit: what must lie at an s3:// address."),
]
_Cancel = Annotated[str | None, typer.Option(metavar="JOB", help="End a job of the service.")]


@app.command()
def sift(
    model: _Model = None,
    training_set: _Set = None,
    cleanset: _CleanSet = None,
    policy: _Policy = None,
    out: _Out = None,
    html: _Html = None,
    seed: _Seed = 0,
    device: _Device = None,
    submit: _Submit = False,
    digest: _Digest = None,
    cancel: _Cancel = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Look for poison in a model's training set, and print what the model does with it.

    Exits 0 if nobody is accused, which clears nothing, 1 if the set is poisoned, 2 if the sift
    could not look, and 5 if a person must.

    With --submit the service does it as a job, and 0 says that it was taken: `guard status JOB`
    shows the report, and --cancel ends the job. No verdict depends on it.
    """
    if cancel is not None:
        from guard.cli import _jobs

        return _jobs.cancel(cancel, form)
    named = given(model, "MODEL", COMMAND)
    if submit:
        for value, option in (
            (out, "--out"),
            (html, "--html"),
            (policy, "--policy"),
            (device, "--device"),
        ):
            without(value, option, to="a sift here")
        return _asked(named, training_set, cleanset, digest, seed, form)
    without(digest, "--digest", to="--submit")
    for file in (out, html):
        _writable(file)
    if out is not None and out.suffix not in ENDINGS:
        raise InputError(f"--out takes a file that ends with {', '.join(ENDINGS)}.", code="bad_out")
    from guard import offline_sift

    with (
        watched("sift") as progress,
        quiet_stdout(),
        offline_sift.sifting(
            Path(named),
            given(training_set, "SET", COMMAND),
            cleanset=given(cleanset, "--cleanset", COMMAND),
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


def _asked(
    model: str,
    training_set: str | None,
    cleanset: str | None,
    digest: str | None,
    seed: int,
    form: Format,
) -> int:
    from guard.cli import _jobs
    from guard.core.training_jobs import JobKind
    from guard.flow.training_jobs import Asked

    asked = Asked(
        kind=JobKind.SIFT,
        model=_jobs.model_named(model),
        training_set=training_set,
        digest=digest,
        cleanset=cleanset,
        seed=seed,
    )
    return _jobs.ask(asked, form)


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
