"""Fit the combination of the policy's detectors on reference models whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, quiet_stdout, write_text
from guard.cli._progress import watched

app = typer.Typer(rich_markup_mode=None)


@app.command()
def calibrate(
    zoo: Annotated[
        Path,
        typer.Option(
            help="A folder of model folders, each with truth.json; cleansets/ beside them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The calibration file to write.")],
    cleanset: Annotated[
        str | None,
        typer.Option(help="A stored name or an .npz; only models that it fits are used."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy TOML, or default, copies, strict, ensemble.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Use only models whose truth names this part of the zoo.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scans and of the folds.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Scan the models, fit the combination, and write one file with its digest.

    Models that were scanned before are not scanned again.
    """
    from guard.core.digests import canonical_json
    from guard.core.errors import InputError

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(
            f"{out} cannot be written; name a file in a folder that exists.", code="bad_out"
        )
    with watched("calibrate") as progress, quiet_stdout():
        from guard import offline

        document, facts = offline.calibrate(
            zoo,
            cleanset=cleanset,
            policy=policy,
            part=part,
            seed=seed,
            device=device,
            progress=progress,
        )
    write_text(out, canonical_json(document).decode() + "\n")
    if form is Format.JSON:
        print_json({"file": str(out), **facts})
    else:
        from guard.cli._render import print_table

        rows = [(key.replace("_", " "), _cell(value)) for key, value in facts.items()]
        print_table(("fact", "value"), rows, title=f"calibration {out}")
    return 0


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {weight:.2f}" for name, weight in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
