"""List, show and acknowledge alarms."""

from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service

if TYPE_CHECKING:
    from guard.flow.alarms import Alarmed

app = typer.Typer(rich_markup_mode=None, help="What a person should see.")
AlarmArgument = Annotated[str, typer.Argument(help="An alarm, or the start of its id.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50,
    closed: Annotated[bool, typer.Option("--all", help="Those that are closed as well.")] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """List open alarms, the newest first."""
    guard = open_service()
    from guard.flow import alarms

    rows = alarms.listed(guard, limit, closed=closed)
    if form is Format.JSON:
        print_json([one.to_dict() for one in rows])
        return 0
    from guard.cli._render import print_table

    cells = [
        (
            one.row.id[:12],
            one.row.kind,
            one.row.subject,
            f"{one.row.at:%Y-%m-%d %H:%M:%S}",
            _state(one),
            one.row.detail,
        )
        for one in rows
    ]
    columns = ("alarm", "kind", "about", "since (UTC)", "state", "what")
    print_table(columns, cells, empty="no alarm" if closed else "no open alarm")
    return 0


@app.command()
def show(alarm: AlarmArgument, form: FormatOption = Format.TABLE) -> int:
    """Show one alarm in full."""
    guard = open_service()
    from guard.flow import alarms

    return _shown(alarms.show(guard, alarm), form)


@app.command()
def ack(
    alarm: AlarmArgument,
    reason: Annotated[str, typer.Option(help="What was found or done; signed.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Acknowledge an alarm, as an operator.

    That closes it, unless it is about something that lasts: then the guard does, once it is over.
    """
    guard = open_service()
    from guard.flow import alarms

    return _shown(alarms.acknowledge(guard, caller(guard), alarm, reason), form)


def _shown(one: "Alarmed", form: Format) -> int:
    if form is Format.JSON:
        print_json(one.to_dict())
        return 0
    row = one.row
    say(f"{row.id}  {row.kind}  {row.subject}")
    say(f"since {row.at:%Y-%m-%d %H:%M:%S} UTC, {_state(one)}")
    say(row.detail)
    if one.acknowledged_by is not None:
        say(f"{one.acknowledged_by}: {one.reason}")
    return 0


def _state(one: "Alarmed") -> str:
    state = "open" if one.row.cleared_at is None else f"closed {one.row.cleared_at:%Y-%m-%d %H:%M}"
    return (
        state if one.acknowledged_by is None else f"{state}, acknowledged by {one.acknowledged_by}"
    )
