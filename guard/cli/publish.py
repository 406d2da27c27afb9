"""Request that a vetted model is served."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._scans import look
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None)


@app.command()
def publish(
    scan_id: Annotated[str, typer.Argument(help="A scan, or the start of its id.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Request the publication of a cleared or purified model.

    Exits 1 if its signed verdict does not allow publication.
    """
    guard = open_service()
    from guard.flow.publish import request

    request(guard, scan_id, caller(guard, named=False))
    seen = look(guard, scan_id)
    if form is Format.JSON:
        print_json(seen.to_dict())
    else:
        digest = seen.scan.canonical_digest or ""
        say(f"publishing {seen.scan.name} sha256:{digest}; `guard served` lists it once it is up")
        say(guard.publisher.calling(seen.scan.name))
    return 0
