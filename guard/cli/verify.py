"""Check ledger, stored bytes and what is served."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)
MISMATCH = 6


@app.command()
def verify(
    digest: Annotated[
        str | None, typer.Argument(help="Only what concerns these weights (SHA-256).")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Verify that nothing was changed behind the guard's back.

    Exits 6 and names each problem if something was.
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
            say("ok: the ledger's chain and signatures, the stored bytes and what is served agree")
    return MISMATCH if problems else 0
