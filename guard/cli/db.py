"""Upgrade the database's schema, and give its roles their rights."""

import typer

from guard.cli._output import say
from guard.cli._service import open_service, open_upgraded

app = typer.Typer(rich_markup_mode=None, help="Manage the database's schema and roles.")


@app.callback()
def db() -> None:
    """Manage the database's schema and roles."""


@app.command()
def upgrade() -> int:
    """Upgrade the schema to this release; does nothing if it is up to date."""
    open_upgraded()
    say("the schema is up to date")
    return 0


@app.command()
def roles(
    prefix: str = typer.Option("guard_", "--prefix", help="How the roles' names begin."),
    apply: bool = typer.Option(
        False, "--apply", help="Make and grant them, as the tables' owner; else print the SQL."
    ),
) -> int:
    """Give the roles worker, signer, api, notifier and reader their rights in PostgreSQL.

    Repeat it after each upgrade of the schema. A new role has no login yet: ALTER ROLE ... LOGIN.
    """
    from guard.flow import schema

    if not apply:
        for statement in schema.role_statements(prefix):
            say(f"{statement};")
        return 0
    say("granted: " + ", ".join(schema.grant_roles(open_service(), prefix)))
    return 0
