"""Train a network anew on a training set that is sifted first: here, or by the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._options import given, without
from guard.cli._output import Format, ReportFormat, ReportFormatOption, quiet_stdout, remark
from guard.cli._progress import watched
from guard.cli._stopping import stoppable
from guard.cli.purify import PAGE, parameters
from guard.core.errors import Cancelled, InputError

app = typer.Typer(rich_markup_mode=None)
COMMAND = "retrain"
_Set = Annotated[
    str | None,
    typer.Argument(
        metavar="SET",
        help="A folder, a .parquet, an .npz, a stored name, or s3://BUCKET/PREFIX/; with --submit "
        "one of the last two, and that of config.json where none is given.",
    ),
]
_Like = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="What the set taught; the new network is built like it. With --submit also a digest, "
        "a name of uploads, or a scan.",
    ),
]
_Method = Annotated[
    str | None, typer.Option(help="sifted, d_st, trap_and_replace, or another retrainer.")
]
_CleanSet = Annotated[
    str | None,
    typer.Option(
        help="A stored name, an image folder, a .parquet or an .npz; with --submit a stored name, "
        "by default that of the model's scan."
    ),
]
_Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="For model.safetensors and config.json.")
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "--param",
        metavar="NAME=VALUE",
        help="A parameter of --method as NAME=VALUE; may be given repeatedly.",
    ),
]
_Policy = Annotated[
    Path | None, typer.Option(help="Policy TOML, or default, copies, strict, ensemble.")
]
_Seed = Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")]
_Device = Annotated[
    str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
]
_Submit = Annotated[
    bool, typer.Option("--submit", help="Have the service do it, within its policy's [retrain].")
]
_Digest = Annotated[
    str | None,
    typer.Option(metavar="SHA256", help="With --submit: what must lie at an s3:// address."),
]
_Cancel = Annotated[str | None, typer.Option(metavar="JOB", help="End a job of the service.")]


@app.command()
def retrain(
    training_set: _Set = None,
    like: _Like = None,
    method: _Method = None,
    cleanset: _CleanSet = None,
    out: _Out = None,
    resume: _Resume = False,
    param: _Parameters = None,
    policy: _Policy = None,
    seed: _Seed = 0,
    device: _Device = None,
    submit: _Submit = False,
    digest: _Digest = None,
    cancel: _Cancel = None,
    form: ReportFormatOption = ReportFormat.TABLE,
) -> int:
    """Sift a training set, train a network on what that leaves, write it and vet it.

    The network is written whatever its verdict; the exit code is the verdict's. Until the end its
    state lies in FOLDER.retrain: after Ctrl-C or a crash the same command with --resume goes on.
    With --format html the page is written into FOLDER as report.html.

    With --submit the service does it as a job, which `guard status` shows and --cancel ends. Its
    network becomes an artifact with a scan of its own, and nothing is published for it.
    """
    if cancel is not None:
        from guard.cli import _jobs

        return _jobs.cancel(cancel, _plain(form))
    model, name = given(like, "--like", COMMAND), given(method, "--method", COMMAND)
    if submit:
        for value, option in ((out, "--out"), (policy, "--policy"), (device, "--device")):
            without(value, option, to="a training here")
        return _asked(training_set, model, name, cleanset, digest, param, seed, _plain(form))
    without(digest, "--digest", to="--submit")
    place = given(out, "--out", COMMAND)
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; --out names a folder.", code="bad_out")
    from guard import offline_retrain

    explained = _explained(offline_retrain.state_folder(place))
    with explained, watched("retrain") as shown, stoppable(shown) as progress, quiet_stdout():
        report = offline_retrain.retrain(
            given(training_set, "SET", COMMAND),
            like=model,
            method=name,
            cleanset=given(cleanset, "--cleanset", COMMAND),
            out=place,
            resume=resume,
            params=parameters(param or []),
            policy=policy,
            seed=seed,
            device=device,
            progress=progress,
        )
    code = answer(report, form, place / PAGE if form is ReportFormat.HTML else None)
    remark(f"The model is in {place}; its verdict is {report.verdict}.")
    return code


def _asked(
    training_set: str | None,
    model: str,
    method: str,
    cleanset: str | None,
    digest: str | None,
    param: list[str] | None,
    seed: int,
    form: Format,
) -> int:
    from guard.cli import _jobs
    from guard.core.training_jobs import JobKind
    from guard.flow.training_jobs import Asked

    asked = Asked(
        kind=JobKind.RETRAIN,
        model=_jobs.model_named(model),
        training_set=training_set,
        digest=digest,
        cleanset=cleanset,
        method=method,
        parameters=parameters(param or []),
        seed=seed,
    )
    return _jobs.ask(asked, form)


@contextmanager
def _explained(state: Path) -> Iterator[None]:
    """After Ctrl-C, how to go on."""
    try:
        yield
    except Cancelled as error:
        raise Cancelled(
            f"Stopped. What was done so far is in {state}; the same command with --resume goes on."
            if state.exists()
            else "Stopped before anything was trained; nothing is kept."
        ) from error


def _plain(form: ReportFormat) -> Format:
    if form not in {ReportFormat.TABLE, ReportFormat.JSON}:
        raise InputError("A job is shown as table or json.", code="option_elsewhere")
    return Format(form)
