"""Serve an older version of a model again."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._scans import look
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A served name.")],
    reason: Annotated[str, typer.Option(help="Why; kept for good.")],
    to: Annotated[
        str | None,
        typer.Option(help="A version of the name, or a scan; otherwise the one before."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Serve what a name served before, as a new version, until a newer upload is cleared."""
    guard = open_service()
    from guard.flow import names

    scan = names.rollback(guard, name, to, reason, caller(guard))
    if form is Format.JSON:
        print_json(look(guard, scan.id).to_dict())
    else:
        digest = scan.canonical_digest or ""
        say(f"going back: {name} sha256:{digest}; `guard served` shows when it is up")
    return 0
