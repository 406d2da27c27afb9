"""Tell an MLflow registry what the gate passes."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json
from guard.cli._service import caller, open_service
from guard.core.plain import to_plain

app = typer.Typer(rich_markup_mode=None, help="Tell an MLflow registry what the gate passes.")
BLOCKED = 1


@app.callback()
def mlflow() -> None:
    """Tell an MLflow registry what the gate passes."""


@app.command("sync")
def follow(
    name: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be given repeatedly.")
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias that serves.")] = "serving",
    newest: Annotated[
        bool, typer.Option("--newest", help="Move it on to the newest version that passes.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Set tags and the serving alias of registered models by their verdicts.

    The alias never stays on, and never goes to, what the gate refuses. Exits 1 if it was taken from
    such a version.
    """
    guard = open_service()
    from guard.flow.mlflow import synchronise

    found = synchronise(
        guard, caller(guard), alias=alias, names=name or (), newest=newest, dry_run=dry_run
    )
    if form is Format.JSON:
        print_json([to_plain(item) for item in found])
    else:
        from guard.cli._render import print_table

        rows = [
            (
                item.name,
                str(one.version),
                one.verdict,
                alias if one.version == item.after else "",
                one.why,
            )
            for item in found
            for one in item.versions
        ]
        print_table(("model", "version", "verdict", "alias", "why"), rows, empty="no model")
    return BLOCKED if any(item.refused for item in found) else 0
