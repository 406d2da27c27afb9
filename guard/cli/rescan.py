"""Scan a model again: before its verdict expires, or after it has."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption
from guard.cli._scans import look, print_scans
from guard.cli._service import caller, open_service
from guard.core.errors import InputError

app = typer.Typer(rich_markup_mode=None)


@app.command()
def rescan(
    wanted: Annotated[
        str | None,
        typer.Argument(help="A served name, a digest (or 8 characters of it), or a scan."),
    ] = None,
    all_expiring: Annotated[
        bool,
        typer.Option("--all-expiring", help="Everything served whose verdict expires soon."),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Open re-scans and list them; the old verdict stands until the new one is signed.

    Only what is missing is run: with unchanged methods and clean set, only the decision is made
    anew.
    """
    if (wanted is None) is not all_expiring:
        raise InputError("Say what to scan again, or --all-expiring.", code="rescan_what")
    guard = open_service()
    from guard.flow import rescan as flow

    who = caller(guard, named=False)
    if wanted is not None:
        opened = flow.request(guard, wanted, who)
    else:
        opened = flow.request_expiring(guard, who)
    print_scans([look(guard, scan_id) for scan_id in opened], form)
    return 0
