"""Show the report on a scan as a table, JSON or an HTML page."""

from typing import Annotated

import typer

from guard.cli._answer import answer
from guard.cli._output import (
    AlsoOption,
    OutOption,
    ReportFormat,
    ReportFormatOption,
    also_wanted,
    check_target,
)
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def report(
    scan_id: Annotated[str, typer.Argument(help="A scan, or the start of its id.")],
    form: ReportFormatOption = ReportFormat.TABLE,
    out: OutOption = None,
    also: AlsoOption = None,
) -> int:
    """Print or write the report on a scan; the exit code is that of its verdict."""
    check_target(form, out)
    further = also_wanted(also)
    from guard.flow.report import report_for

    return answer(report_for(open_service(), scan_id), form, out, also=further)
