"""Upgrade the database's schema."""

import typer

from guard.cli._output import say

app = typer.Typer(rich_markup_mode=None, help="Manage the database's schema.")


@app.callback()
def db() -> None:
    """Manage the database's schema."""


@app.command()
def upgrade() -> int:
    """Upgrade the schema to this release; does nothing if it is up to date."""
    from guard.bootstrap import upgrade_database
    from guard.cli._environment import settings_here

    upgrade_database(settings_here())
    say("the schema is up to date")
    return 0
