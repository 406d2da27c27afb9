"""Check the ledger, the stored bytes and what is served."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)
MISMATCH = 6


@app.command()
def verify(
    digest: Annotated[
        str | None, typer.Argument(help="Check only what concerns these weights (SHA-256).")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Verify that nothing was changed outside the guard.

    If something was, each problem is named and the exit code is 6.
    """
    guard = open_service()
    from guard.flow.verify import verify as check

    problems = check(guard, digest)
    if form is Format.JSON:
        print_json({"digest": digest, "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            say(problem)
        if not problems:
            say("ok: ledger chain, signatures, stored bytes and served models agree")
    return MISMATCH if problems else 0
