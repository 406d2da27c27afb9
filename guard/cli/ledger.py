"""Take a ledger that differs from its checkpoints."""

from typing import Annotated

import typer

from guard.cli._output import say
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None, help="Look after the ledger and its checkpoints.")


@app.callback()
def ledger() -> None:
    """Look after the ledger and its checkpoints."""


@app.command()
def accept(
    reason: Annotated[str, typer.Option(help="Why; signed and kept in the ledger.")],
) -> int:
    """Take the database as it is, after a restore for example.

    Names what was wrong. Every revocation that is on record is put back first.
    """
    guard = open_service()
    from guard.flow.accept import accept as act

    wrong = act(guard, reason, caller(guard))
    for sentence in wrong:
        say(sentence)
    say("accepted as it is now" if wrong else "the ledger agrees with its checkpoints")
    return 0
