"""Write what is published under a name into a folder, to carry it elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="The name that the model is served under.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or an empty folder.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write weights, config.json, signed release and model signature, if the gate passes them.

    `model_signing verify key` checks the signature, where the guard has a key for it.
    """
    guard = open_service()
    from guard.flow.export import export as write

    row = write(guard, name, out)
    if form is Format.JSON:
        print_json(
            {"name": row.name, "version": row.version, "digest": row.digest, "out": str(out)}
        )
    else:
        say(f"{row.name} {row.version} sha256:{row.digest} {out}")
    return 0
