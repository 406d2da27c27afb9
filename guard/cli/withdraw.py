"""Take a model out of serving permanently."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def withdraw(
    name_or_digest: Annotated[
        str, typer.Argument(help="A served name, or the SHA-256 of weights.")
    ],
    reason: Annotated[str, typer.Option(help="The reason, which the revocation keeps.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Revoke the models served under a name, or one digest.

    They are taken out of serving and never served again.
    """
    guard = open_service()
    from guard.flow.withdraw import withdraw as revoke

    rows = revoke(guard, name_or_digest, reason, caller(guard))
    if form is Format.JSON:
        print_json(
            [{"name": row.name, "version": row.version, "digest": row.digest} for row in rows]
        )
    elif rows:
        for row in rows:
            say(f"withdrawn {row.name} {row.version} sha256:{row.digest}")
    else:
        say(f"revoked sha256:{name_or_digest}; it was not being served")
    return 0
