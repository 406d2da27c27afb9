"""Vet one model file; needs no service."""

import math
from pathlib import Path
from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._output import (
    Also,
    AlsoOption,
    OutOption,
    ReportFormat,
    ReportFormatOption,
    also_wanted,
    check_target,
    print_json,
    quiet_stdout,
)
from guard.cli._progress import watched
from guard.core.errors import InputError

app = typer.Typer(rich_markup_mode=None)


@app.command()
def scan(
    path: Annotated[
        str,
        typer.Argument(
            help="A model file, a folder with model.safetensors and config.json, or "
            "hf://ORG/NAME[@REVISION] in the local cache."
        ),
    ],
    cleanset: Annotated[
        str, typer.Option(help="A stored name, an image folder, a .parquet or an .npz.")
    ],
    policy: Annotated[
        Path | None, typer.Option(help="Policy TOML, or default, copies, strict, ensemble.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time budget of all detectors together.")
    ] = math.inf,
    form: ReportFormatOption = ReportFormat.TABLE,
    out: OutOption = None,
    also: AlsoOption = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Print what the scan would cost, and scan nothing."),
    ] = False,
) -> int:
    """Vet one model file and print the verdict; nothing in the file is executed."""
    check_target(form, out)
    further = also_wanted(also)
    if estimate:
        return _estimated(path, cleanset, policy, device, form, further)
    from guard import offline

    with watched("scan") as progress, quiet_stdout():
        report = offline.scan(
            path,
            cleanset=cleanset,
            policy=policy,
            seed=seed,
            device=device,
            progress=progress,
            seconds=seconds,
        )
    return answer(report, form, out, where=path, also=further)


def _estimated(
    path: str,
    cleanset: str,
    policy: Path | None,
    device: str | None,
    form: ReportFormat,
    further: Also,
) -> int:
    if form not in {ReportFormat.TABLE, ReportFormat.JSON} or further:
        raise InputError(
            "--estimate makes no report: it prints a table, or JSON with --format json.",
            code="no_report",
        )
    from guard.cli._estimate import print_estimate
    from guard.offline_estimate import estimate

    with quiet_stdout():
        found = estimate(path, cleanset=cleanset, policy=policy, device=device)
    if form is ReportFormat.JSON:
        print_json(found.to_dict())
    else:
        print_estimate(found)
    return 0
