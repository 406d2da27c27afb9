"""Print the model-card section of a model that the service knows, or write it into its card."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._jobs import model_named
from guard.cli._output import ReportFormat, check_target, say, write_text
from guard.cli._service import open_service
from guard.core.errors import InputError

app = typer.Typer(rich_markup_mode=None)
MAX_CARD_BYTES = 4 << 20


@app.command()
def card(
    wanted: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, a digest, a scan, or a model file.")
    ],
    write: Annotated[
        Path | None,
        typer.Option(metavar="README.md", help="The card: the guard's part in it is renewed."),
    ] = None,
) -> int:
    """Print a section for a model card, with results in the front matter of model hubs.

    The exit code is that of the verdict in force.
    """
    check_target(ReportFormat.CARD, write)
    from guard.flow.report import report_on

    old = _read(write)
    report = report_on(open_service(), model_named(wanted))
    if write is None:
        return answer(report, ReportFormat.CARD)
    from guard.reports.model_card import render_card, renewed

    write_text(write, renewed(old, report) if old.strip() else render_card(report))
    say(f"{report.verdict} {report.name} {write}")
    return report.exit_code


def _read(path: Path | None) -> str:
    """The card as it is; empty where there is none."""
    if path is None or not path.exists():
        return ""
    try:
        data = path.read_bytes()
        if len(data) > MAX_CARD_BYTES:
            raise InputError(f"{path} is too large for a model card.", code="card_unreadable")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a card: {error}.", code="card_unreadable"
        ) from error
