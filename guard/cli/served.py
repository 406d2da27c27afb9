"""List what is served, and whether the guard allows it."""

from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, remark
from guard.cli._service import open_service
from guard.core.plain import to_plain
from guard.core.states import WouldBe, exit_code

if TYPE_CHECKING:
    from rich.text import Text

    from guard.flow.served import ServedRow

app = typer.Typer(rich_markup_mode=None)
MISMATCH = 6


@app.command()
def served(
    form: FormatOption = Format.TABLE,
    name: Annotated[str | None, typer.Option(help="Show only this model.")] = None,
) -> int:
    """List every served model; exits 6 if any of them was not vetted.

    Where the gate only warns and lets a model through, the exit code is that of its verdict.
    """
    guard = open_service()
    from guard.flow.served import served as ask

    rows = [row for row in ask(guard) if name is None or row.served.name == name]
    if form is Format.JSON:
        print_json(
            [
                {
                    "name": row.served.name,
                    "version": row.served.version,
                    "digest": row.served.digest,
                    "ready": row.served.ready,
                    "default": row.served.default,
                    "vetted": row.vetted,
                    "verdict": str(row.verdict) if row.verdict is not None else None,
                    "gate": to_plain(row.gate),
                    "why": row.why,
                    "calling": guard.publisher.calling(row.served.name),
                }
                for row in rows
            ]
        )
    else:
        from guard.cli._render import print_table

        shown = [
            (
                row.served.name,
                row.served.version,
                (row.served.digest or "unknown")[:16],
                "yes" if row.served.ready else "no",
                "yes" if row.served.default else "no",
                _judged(row),
                row.why,
            )
            for row in rows
        ]
        print_table(
            ("model", "version", "sha256", "ready", "default", "gate", "why"),
            shown,
            empty="nothing is served",
        )
        for row in rows if name is not None else rows[:1]:
            remark(f"{row.served.name}: {guard.publisher.calling(row.served.name)}")
    return max((_exit_code(row) for row in rows), default=0)


def _judged(row: "ServedRow") -> "Text":
    from rich.text import Text

    if row.vetted:
        return Text("vetted", style="green")
    if row.gate is not None:
        return Text(f"WARNS ({row.gate.would_be})", style="bold yellow")
    return Text("NOT VETTED", style="bold red")


def _exit_code(row: "ServedRow") -> int:
    if row.vetted:
        return 0
    if row.gate is None or row.verdict is None:
        return MISMATCH
    return exit_code(row.verdict, expired=row.gate.would_be is WouldBe.EXPIRED)
