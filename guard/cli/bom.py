"""Print the bill of materials of a model that the service knows."""

from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._jobs import model_named
from guard.cli._output import OutOption, ReportFormat, check_target
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def bom(
    wanted: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, a digest, a scan, or a model file.")
    ],
    out: OutOption = None,
) -> int:
    """Print or write a CycloneDX ML-BOM; the exit code is that of the verdict in force."""
    check_target(ReportFormat.CYCLONEDX, out)
    from guard.flow.report import report_on

    report = report_on(open_service(), model_named(wanted))
    return answer(report, ReportFormat.CYCLONEDX, out)
