"""List whose the served names are, or give one away."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json
from guard.cli._service import caller, open_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.store.rows import ClaimRow

app = typer.Typer(rich_markup_mode=None, help="Look after served names and their owners.")


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List served names with the folder and the owner that each belongs to."""
    from guard.flow import names

    _print(names.claimed(open_service()), form)
    return 0


@app.command()
def transfer(
    name: Annotated[str, typer.Argument(help="A served name.")],
    reason: Annotated[str, typer.Option(help="Why; kept for good.")],
    owner: Annotated[
        str | None, typer.Option(help="The new owner, as scans show who submitted them.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="The new folder in the bucket, with its slash.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Give a name to another owner or folder. You cannot give it to yourself."""
    guard = open_service()
    from guard.flow import names

    _print([names.transfer(guard, name, owner, prefix, reason, caller(guard))], form)
    return 0


def _print(rows: "Sequence[ClaimRow]", form: Format) -> None:
    if form is Format.JSON:
        print_json([{**asdict(row), "since": row.since.isoformat()} for row in rows])
        return
    from guard.cli._render import print_table

    cells = [(row.name, f"s3://{row.bucket}/{row.prefix}", row.owner or "") for row in rows]
    print_table(("name", "belongs to", "owner"), cells, empty="no name is claimed")
