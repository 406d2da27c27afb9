"""List who did what."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None, help="The acts of principals: append-only.")


@app.callback()
def acts() -> None:
    """The acts of principals: append-only."""


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50,
    form: FormatOption = Format.TABLE,
) -> int:
    """List reviews, publication requests, withdrawals and changes of tokens, the newest first."""
    guard = open_service()
    from guard.store import acts as store
    from guard.store.session import reading

    with reading(guard.engine) as session:
        rows = store.list_recent(session, limit)
    if form is Format.JSON:
        print_json([vars(row) for row in rows])
        return 0
    for row in rows:
        who = f"{row.principal} ({row.role or 'unauthenticated'})"
        say(f"{row.at:%Y-%m-%d %H:%M:%S}  {who}  {row.act}  {row.subject}  {row.detail}")
    if not rows:
        say("none")
    return 0
