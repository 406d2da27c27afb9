"""Upgrade the database's schema."""

import typer

from guard.cli._output import say
from guard.cli._service import open_upgraded

app = typer.Typer(rich_markup_mode=None, help="Manage the database's schema.")


@app.callback()
def db() -> None:
    """Manage the database's schema."""


@app.command()
def upgrade() -> int:
    """Upgrade the schema to this release; does nothing if it is up to date."""
    open_upgraded()
    say("the schema is up to date")
    return 0
