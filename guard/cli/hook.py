"""Make, list, test and remove destinations of notifications, and read their delivery log."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, remark, say
from guard.cli._service import caller, open_service
from guard.core.errors import InputError
from guard.core.hooks import HookKind

if TYPE_CHECKING:
    from guard.store.notify_rows import HookRow

app = typer.Typer(rich_markup_mode=None, help="Webhooks, Slack and mail: who is notified of what.")
HookArgument = Annotated[str, typer.Argument(help="A destination, or the start of its id.")]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only events of this type, or guard.verdict.*; may be repeated."),
]
PrefixOption = Annotated[
    list[str] | None,
    typer.Option(help="Only events about models whose name starts so; may be repeated."),
]


@app.command()
def add(
    kind: Annotated[HookKind, typer.Argument(help="How it is reached.")],
    address: Annotated[
        str, typer.Argument(help="A URL or a mail address; - reads it from standard input.")
    ],
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read a webhook's whsec_ secret, a line of it.")
    ] = False,
    types: TypeOption = None,
    prefix: PrefixOption = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Make a destination, as an operator. A webhook's secret is printed once.

    Without --secret-stdin the guard makes the secret. The address of Slack is a secret, too: it is
    not shown again, and "-" keeps it out of the shell's history.
    """
    guard = open_service()
    from guard.flow import hooks

    address = _line("an address") if address == "-" else address
    made = hooks.add(
        guard,
        caller(guard),
        kind,
        address,
        secret=_line("a secret") if secret_stdin else "",
        types=types or (),
        prefixes=prefix or (),
    )
    if form is Format.JSON:
        print_json({**hooks.shown(made.row), "secret": made.secret or None})
        return 0
    say(made.row.id)
    if made.secret:
        say(made.secret)
        remark("the secret is not shown again")
    return 0


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List destinations, without what is secret of them."""
    guard = open_service()
    from guard.flow import hooks

    rows = hooks.listed(guard)
    if form is Format.JSON:
        print_json([hooks.shown(row) for row in rows])
        return 0
    from guard.cli._render import print_table

    cells = [
        (row.id[:12], str(row.kind), row.shown, _filter(row), row.created_by, _state(row))
        for row in rows
    ]
    columns = ("hook", "kind", "where", "what", "by", "state")
    print_table(columns, cells, empty="no destination")
    return 0


@app.command()
def show(hook: HookArgument, form: FormatOption = Format.TABLE) -> int:
    """Show one destination."""
    guard = open_service()
    from guard.flow import hooks

    return _shown(hooks.show(guard, hook), form)


@app.command("test")
def try_out(hook: HookArgument, form: FormatOption = Format.TABLE) -> int:
    """Have a test event sent to one destination, as an operator; `guard hook log` shows the end."""
    guard = open_service()
    from guard.flow import hooks

    row = hooks.test(guard, caller(guard), hook)
    if form is Format.JSON:
        print_json({"delivery": row.id, "event": row.event_id})
    else:
        say(row.id)
        remark("it is sent by the worker of the queue notify; see `guard hook log`")
    return 0


@app.command()
def retry(
    delivery: Annotated[str, typer.Argument(help="A delivery, or the start of its id.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Have a delivery that is over sent once more, as an operator, under the same id."""
    guard = open_service()
    from guard.flow import hooks

    row = hooks.retry(guard, caller(guard), delivery)
    if form is Format.JSON:
        print_json({"delivery": row.id, "event": row.event_id})
    else:
        say(row.id)
    return 0


@app.command()
def remove(hook: HookArgument, form: FormatOption = Format.TABLE) -> int:
    """Remove a destination for good, as an operator; its address and secret are forgotten."""
    guard = open_service()
    from guard.flow import hooks

    return _shown(hooks.remove(guard, caller(guard), hook), form)


@app.command()
def log(
    hook: Annotated[str | None, typer.Argument(help="Of one destination only.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only what was given up.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50,
    form: FormatOption = Format.TABLE,
) -> int:
    """Show deliveries, the newest first, with status, time and error of their last try."""
    guard = open_service()
    from guard.flow import hooks

    rows = hooks.log(guard, hook, dead=dead, limit=limit)
    if form is Format.JSON:
        print_json([one.to_dict() for one in rows])
        return 0
    from guard.cli._render import print_table

    cells = []
    for one in rows:
        last = one.attempts[-1] if one.attempts else None
        status = "" if last is None else "no answer" if last.status is None else str(last.status)
        cells.append(
            (
                one.row.id[:12],
                one.row.hook_id[:12],
                f"{one.row.created_at:%Y-%m-%d %H:%M:%S}",
                one.event.type,
                str(one.row.state),
                str(len(one.attempts)),
                status,
                last.error if last is not None else "",
            )
        )
    columns = ("delivery", "hook", "since (UTC)", "event", "state", "tries", "last", "error")
    print_table(columns, cells, empty="no delivery")
    return 0


def _line(what: str) -> str:
    line = sys.stdin.readline().strip()
    if not line:
        raise InputError(f"Standard input holds no line with {what}.", code="nothing_on_stdin")
    return line


def _shown(row: "HookRow", form: Format) -> int:
    if form is Format.JSON:
        from guard.flow import hooks

        print_json(hooks.shown(row))
        return 0
    say(f"{row.id}  {row.kind}  {row.shown}")
    say(f"{_filter(row)}; {_state(row)}")
    say(f"made by {row.created_by} at {row.created_at:%Y-%m-%d %H:%M:%S} UTC")
    return 0


def _filter(row: "HookRow") -> str:
    types = ", ".join(row.types) or "all events"
    return types + (
        f" about {', '.join(f'{one}*' for one in row.prefixes)}" if row.prefixes else ""
    )


def _state(row: "HookRow") -> str:
    if row.removed_at is not None:
        return f"removed {row.removed_at:%Y-%m-%d %H:%M}"
    if row.resting_until is None:
        return "in force"
    return f"failed {row.failures} times, rests until {row.resting_until:%Y-%m-%d %H:%M:%S}"
