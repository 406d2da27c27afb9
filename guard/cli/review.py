"""List, show, approve or reject held verdicts."""

from typing import Annotated

import typer

from guard.cli import _scans
from guard.cli._answer import answer
from guard.cli._output import (
    Format,
    FormatOption,
    OutOption,
    ReportFormat,
    ReportFormatOption,
    check_target,
    print_json,
    say,
)
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None, help="Review held verdicts and decide on them.")
ScanArgument = Annotated[str, typer.Argument(help="A scan, or the start of its id.")]
ReasonOption = Annotated[str, typer.Option(help="The reason, which the signed verdict keeps.")]


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List what waits for a review, the longest waiting first.

    Exits 2 if any of it has expired and must be scanned again before it can be reviewed.
    """
    guard = open_service()
    from guard.core.states import EXPIRED
    from guard.flow.review import waiting

    rows = [_scans.look(guard, row.id) for row in waiting(guard)]
    _scans.print_scans(rows, form)
    return EXPIRED if any(row.expired for row in rows) else 0


@app.command()
def show(
    scan_id: ScanArgument,
    form: ReportFormatOption = ReportFormat.TABLE,
    out: OutOption = None,
) -> int:
    """Show all evidence on a scan; exits 5 while it is held."""
    check_target(form, out)
    from guard.flow.report import report_for

    return answer(report_for(open_service(), scan_id), form, out)


@app.command()
def approve(scan_id: ScanArgument, reason: ReasonOption, form: FormatOption = Format.TABLE) -> int:
    """Clear a held model and have it published; you cannot approve your own upload."""
    return _decide(scan_id, reason, form, approved=True)


@app.command()
def reject(scan_id: ScanArgument, reason: ReasonOption, form: FormatOption = Format.TABLE) -> int:
    """Reject a held model; exits 0 once the rejection is recorded."""
    return _decide(scan_id, reason, form, approved=False)


def _decide(scan_id: str, reason: str, form: Format, *, approved: bool) -> int:
    guard = open_service()
    who = caller(guard)
    from guard.flow import review

    act = review.approve if approved else review.reject
    verdict_id = act(guard, scan_id, who, reason)
    seen = _scans.look(guard, scan_id)
    if form is Format.JSON:
        print_json({**seen.to_dict(), "verdict_id": verdict_id, "reviewer": who.name})
    else:
        decision = "approved" if approved else "rejected"
        say(
            f"{decision} {seen.scan.name} sha256:{seen.scan.canonical_digest or ''} as {who.name}, "
            f"verdict {verdict_id}"
        )
    return 0
