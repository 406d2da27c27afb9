"""Train a network anew on a training set that is sifted first, and vet it; needs no service."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._output import ReportFormat, ReportFormatOption, quiet_stdout, remark
from guard.cli._progress import watched
from guard.cli._stopping import stoppable
from guard.cli.purify import PAGE, parameters
from guard.core.errors import Cancelled, InputError

app = typer.Typer(rich_markup_mode=None)
_Set = Annotated[
    str,
    typer.Argument(
        metavar="SET",
        help="A folder, a .parquet, an .npz, a stored name, or s3://BUCKET/PREFIX/.",
    ),
]
_Like = Annotated[
    Path,
    typer.Option(metavar="MODEL", help="What the set taught; the new network is built like it."),
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


@app.command()
def retrain(
    training_set: _Set,
    like: _Like,
    method: Annotated[
        str, typer.Option(help="sifted, d_st, trap_and_replace, or another retrainer.")
    ],
    cleanset: Annotated[
        str, typer.Option(help="A stored name, an image folder, a .parquet or an .npz.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For model.safetensors and config.json.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    param: _Parameters = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy TOML, or default, strict, ensemble.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    form: ReportFormatOption = ReportFormat.TABLE,
) -> int:
    """Sift a training set, train a network on what that leaves, write it and vet it.

    The network is written whatever its verdict; the exit code is the verdict's. Until the end its
    state lies in FOLDER.retrain: after Ctrl-C or a crash the same command with --resume goes on.
    With --format html the page is written into FOLDER as report.html.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder.", code="bad_out")
    from guard import offline_retrain

    state = offline_retrain.state_folder(out)
    try:
        with watched("retrain") as shown, stoppable(shown) as progress, quiet_stdout():
            report = offline_retrain.retrain(
                training_set,
                like=like,
                method=method,
                cleanset=cleanset,
                out=out,
                resume=resume,
                params=parameters(param or []),
                policy=policy,
                seed=seed,
                device=device,
                progress=progress,
            )
    except Cancelled as error:
        raise Cancelled(
            f"Stopped. What was done so far is in {state}; the same command with --resume goes on."
            if state.exists()
            else "Stopped before anything was trained; nothing is kept."
        ) from error
    code = answer(report, form, out / PAGE)
    remark(f"The model is in {out}; its verdict is {report.verdict}.")
    return code
