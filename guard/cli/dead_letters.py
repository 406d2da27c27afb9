"""List, show and retry messages that no worker could handle."""

from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service

if TYPE_CHECKING:
    from guard.flow.retry import Letter

app = typer.Typer(rich_markup_mode=None, help="Messages that no worker could handle.")
LetterArgument = Annotated[str, typer.Argument(help="A dead letter, or the start of its id.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50,
    form: FormatOption = Format.TABLE,
) -> int:
    """List dead letters, the newest first."""
    guard = open_service()
    from guard.flow import retry as flow

    rows = flow.listed(guard, limit)
    if form is Format.JSON:
        print_json([one.to_dict() for one in rows])
        return 0
    from guard.cli._render import print_table

    cells = [
        (
            one.row.id[:12],
            one.row.task,
            _about(one),
            f"{one.row.at:%Y-%m-%d %H:%M:%S}",
            "-" if one.retried_by is None else f"by {one.retried_by}",
            one.row.error,
        )
        for one in rows
    ]
    print_table(
        ("letter", "task", "about", "since (UTC)", "retried", "why"), cells, empty="no dead letter"
    )
    return 0


@app.command()
def show(letter: LetterArgument, form: FormatOption = Format.TABLE) -> int:
    """Show one dead letter in full."""
    guard = open_service()
    from guard.flow import retry as flow

    return _shown(flow.show(guard, letter), form)


@app.command()
def retry(letter: LetterArgument, form: FormatOption = Format.TABLE) -> int:
    """Have a message handled again, as an operator, once its cause is mended."""
    guard = open_service()
    from guard.flow import retry as flow

    return _shown(flow.retry(guard, caller(guard), letter), form)


def _shown(one: "Letter", form: Format) -> int:
    if form is Format.JSON:
        print_json(one.to_dict())
        return 0
    say(f"{one.row.id}  {one.row.task}  {_about(one)}")
    say(f"since {one.row.at:%Y-%m-%d %H:%M:%S} UTC")
    say(one.row.error)
    if one.retried_by is not None and one.retried_at is not None:
        say(f"tried again by {one.retried_by}, {one.retried_at:%Y-%m-%d %H:%M:%S} UTC")
    return 0


def _about(one: "Letter") -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(one.row.payload.items()))
