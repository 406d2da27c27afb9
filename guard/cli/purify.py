"""Repair one model file and vet the result; needs no service."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from guard.cli._answer import answer
from guard.cli._output import ReportFormat, ReportFormatOption, quiet_stdout
from guard.cli._progress import watched
from guard.core.errors import InputError
from guard.core.states import Verdict
from guard.reports.report import Report

app = typer.Typer(rich_markup_mode=None)
PAGE = "report.html"
TrainingSetOption = Annotated[
    str,
    typer.Option(
        metavar="SET",
        help="What taught the model, as `guard sift` takes it: it is sifted, and what is found "
        "helps the repair and proves it.",
    ),
]


@app.command()
def purify(
    path: Annotated[
        Path,
        typer.Argument(help="A model file, or a folder with model.safetensors and config.json."),
    ],
    cleanset: Annotated[
        str, typer.Option(help="A stored name, an image folder, a .parquet or an .npz.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for model.safetensors and config.json; by default "
            "NAME-purified in this folder.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy TOML, or default, copies, strict, ensemble.")
    ] = None,
    defense: Annotated[
        str | None,
        typer.Option(help="Use this defense whatever the verdict; by default, the policy's."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "--param",
            metavar="NAME=VALUE",
            help="A parameter of --defense as NAME=VALUE; may be given repeatedly.",
        ),
    ] = None,
    training_set: TrainingSetOption = "",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer, on one machine.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    form: ReportFormatOption = ReportFormat.TABLE,
) -> int:
    """Vet a model, repair it if it is backdoored, vet the result, and write it only if it passes.

    With --format html the page is written into the --out folder as report.html.
    """
    params = parameters(param or [])
    if params and defense is None:
        raise InputError("--set goes with --defense NAME.", code="param_without_defense")
    out = _folder(out, path)
    from guard import offline

    with watched("purify") as progress, quiet_stdout():
        report = offline.purify(
            path,
            cleanset=cleanset,
            out=out,
            policy=policy,
            defense=defense,
            params=params or None,
            seed=seed,
            device=device,
            progress=progress,
            training_set=training_set or None,
        )
    code = _shown(report, form, out, path)
    # The parent's own clearance is a result too, but a requested defense whose model fails must not
    # exit 0.
    return code if defense is None or report.verdict is Verdict.PURIFIED else code or 1


def _folder(out: Path | None, path: Path) -> Path:
    out = out or Path(f"{path.resolve().stem}-purified")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder.", code="bad_out")
    return out


def _shown(report: Report, form: ReportFormat, out: Path, path: Path) -> int:
    page = out / PAGE if form is ReportFormat.HTML else None
    if page is not None:
        out.mkdir(parents=True, exist_ok=True)
    code = answer(report, form, page, where=str(path))
    servable = report.verdict in {Verdict.PURIFIED, Verdict.CLEARED}
    if servable and (out / "model.safetensors").is_file():
        typer.echo(f"The model is in {out}.", err=True)
    return code


def parameters(pairs: list[str]) -> dict[str, Any]:
    """Parse parameters: `["epochs=3", "name=sgd"]` gives `{"epochs": 3, "name": "sgd"}`.

    A value is JSON where it parses as such, otherwise text.

    Raises:
        InputError: a pair has no `=`, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier() or name in found:
            raise InputError(
                f"{pair!r} is not a parameter; write NAME=VALUE, each name once.",
                code="bad_parameter",
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
