"""Bring the database's schema up to date."""

import typer

from guard.cli._output import say

app = typer.Typer(rich_markup_mode=None, help="Look after the database's schema.")


@app.callback()
def db() -> None:
    """Look after the database's schema."""


@app.command()
def upgrade() -> int:
    """Bring the schema up to this release; harmless if it is."""
    from guard.bootstrap import upgrade_database
    from guard.cli._environment import settings_here

    upgrade_database(settings_here())
    say("the schema is up to date")
    return 0
