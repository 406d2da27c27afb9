"""List what is served, and whether the guard allows it."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)
MISMATCH = 6


@app.command()
def served(
    form: FormatOption = Format.TABLE,
    name: Annotated[str | None, typer.Option(help="Show only this model.")] = None,
) -> int:
    """List every served model; exits 6 if any of them was not vetted."""
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
                    "why": row.why,
                }
                for row in rows
            ]
        )
    else:
        from rich.text import Text

        from guard.cli._render import print_table

        shown = [
            (
                row.served.name,
                row.served.version,
                (row.served.digest or "unknown")[:16],
                "yes" if row.served.ready else "no",
                "yes" if row.served.default else "no",
                Text("vetted", style="green")
                if row.vetted
                else Text("NOT VETTED", style="bold red"),
                row.why,
            )
            for row in rows
        ]
        print_table(
            ("model", "version", "sha256", "ready", "default", "gate", "why"),
            shown,
            empty="nothing is served",
        )
    return 0 if all(row.vetted for row in rows) else MISMATCH
