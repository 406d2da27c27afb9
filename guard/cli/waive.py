"""Waive one finding about one artifact, by two people and for a time."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.core.waivers import Waiver


class WithAsk(TyperGroup):
    """A group in which what is no command is an artifact: `guard waive ARTIFACT --finding ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `ask` before what names no command and is no option."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["ask", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    rich_markup_mode=None,
    cls=WithAsk,
    help="Waive findings: one reviewer asks, another agrees.",
)
WaiverArgument = Annotated[str, typer.Argument(help="A waiver, or the start of its id.")]


@app.command()
def ask(
    artifact: Annotated[str, typer.Argument(help="The SHA-256 of weights, or a scan.")],
    finding: Annotated[str, typer.Option(help="METHOD, or METHOD:CLASS.")],
    reason: Annotated[str, typer.Option(help="Why the finding does not count; signed.")],
    until: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day (UTC) on which it ends.")
    ],
    form: FormatOption = Format.TABLE,
) -> int:
    """Ask for a waiver; it counts once another reviewer agrees.

    `guard waive ARTIFACT` is short for `guard waive ask ARTIFACT`.
    """
    guard = open_service()
    from guard.flow import waivers

    end = until.replace(tzinfo=UTC)
    made = waivers.ask(guard, caller(guard), artifact, finding, reason=reason, until=end)
    if form is Format.JSON:
        print_json(_shown(made, "waiting"))
    else:
        say(f"asked for {made.waiver_id}; another reviewer agrees by `guard waive approve`")
    return 0


@app.command()
def approve(waiver: WaiverArgument, form: FormatOption = Format.TABLE) -> int:
    """Agree to what another reviewer asked for; the artifact is decided anew, not scanned."""
    guard = open_service()
    from guard.flow import waivers

    made, begun = waivers.approve(guard, caller(guard), waiver)
    return _done("approved", made, "in force", begun, form)


@app.command()
def revoke(
    waiver: WaiverArgument,
    reason: Annotated[str, typer.Option(help="Why it ends; signed.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """End a waiver; the artifact is decided anew, not scanned."""
    guard = open_service()
    from guard.flow import waivers

    ended, begun = waivers.revoke(guard, caller(guard), waiver, reason)
    return _done("revoked", ended, "revoked", begun, form)


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List every waiver with its state, the newest first."""
    guard = open_service()
    from guard.flow import waivers

    rows = waivers.listed(guard)
    if form is Format.JSON:
        print_json([_shown(row.waiver, row.state) for row in rows])
        return 0
    from guard.cli._render import print_table

    cells = [
        (
            row.waiver.waiver_id[:12],
            row.state,
            row.waiver.artifact[:12],
            row.waiver.finding,
            f"{row.waiver.until:%Y-%m-%d}",
            f"{row.waiver.owner}, {row.waiver.approver}",
            row.waiver.reason,
        )
        for row in rows
    ]
    columns = ("waiver", "state", "artifact", "finding", "until", "by", "reason")
    print_table(columns, cells, empty="no finding was ever waived")
    return 0


def _done(verb: str, waiver: "Waiver", state: str, begun: "Sequence[str]", form: Format) -> int:
    if form is Format.JSON:
        print_json({**_shown(waiver, state), "decided_anew": list(begun)})
    else:
        say(f"{verb} {waiver.waiver_id}; decided anew: {', '.join(begun) or 'nothing'}")
    return 0


def _shown(waiver: "Waiver", state: str) -> dict[str, Any]:
    from guard.core.plain import to_plain

    return {**to_plain(waiver), "state": state}
