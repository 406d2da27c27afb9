"""Make a back-up of the whole guard, and restore it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import say
from guard.cli._service import caller, login_name, open_service

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.flow.principals import Principal

app = typer.Typer(rich_markup_mode=None, help="Make a back-up of the whole guard, and restore it.")
MISMATCH = 6
SHOWN = 5


@app.callback()
def backup() -> None:
    """Make a back-up of the whole guard, and restore it."""


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="A new folder for it.")],
    blobs: Annotated[
        bool, typer.Option("--blobs", help="Copy the blobs too, not only their names.")
    ] = False,
    signing_key: Annotated[
        bool, typer.Option("--signing-key", help="Copy the private key too; guard the folder then.")
    ] = False,
) -> int:
    """Write database, checkpoints, trusted keys and the list of blobs into a signed folder.

    The service may go on meanwhile.
    """
    from guard import __version__
    from guard.flow.backup import create as make

    key_id, facts = make(open_service(), folder, __version__, blobs=blobs, signing_key=signing_key)
    say(
        f"made {folder}: {sum(facts.tables.values())} rows, {facts.blobs} blobs "
        f"({'copied' if blobs else 'named'}), checkpoint {facts.checkpoint}"
    )
    say(f"signed by {key_id}; note it elsewhere: `guard backup restore {folder} --key {key_id}`")
    return 0


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="The folder of a back-up.")],
    key: Annotated[
        str, typer.Option("--key", help="Who signed it, where no trusted keys are left here.")
    ] = "",
    older: Annotated[
        bool, typer.Option("--older", help="Though checkpoints that are here are newer.")
    ] = False,
) -> int:
    """Bring a back-up into an empty database; then run `guard verify`.

    Exit code 6 where blobs are missing or the ledger is older than its checkpoints.
    """
    from guard.flow.backup import restore as bring

    guard = open_service()
    done = bring(guard, folder, lambda: _who(guard), key=key, older=older)
    say(f"restored {done.rows} rows of {done.facts.made_at:%Y-%m-%d %H:%M} UTC")
    if done.signing_key:
        say("restored the signing key")
    for digest in done.missing[:SHOWN]:
        say(f"missing: blob {digest}")
    if done.missing[SHOWN:]:
        say(f"missing: {len(done.missing) - SHOWN} more blobs")
    if done.behind:
        say("the ledger is older than its checkpoints: `guard verify`, then `guard ledger accept`")
    return MISMATCH if done.missing or done.behind else 0


def _who(guard: "Guard") -> "Principal":
    """Whose token the restored database knows; else the login."""
    from guard.flow.principals import Principal, Unauthorised

    with suppress(Unauthorised):
        return caller(guard, named=False)
    return Principal(name=login_name(), role=None)
