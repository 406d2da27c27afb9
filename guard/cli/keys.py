"""Make, trust and distrust signing keys."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service

app = typer.Typer(rich_markup_mode=None, help="Make, trust and distrust signing keys.")
ReasonOption = Annotated[str, typer.Option(help="Why; signed and kept in the ledger.")]


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List the keys whose signatures count."""
    guard = open_service()
    keys = sorted(guard.trusted.keys)
    if form is Format.JSON:
        print_json(keys)
    else:
        for key_id in keys or ["no key is trusted"]:
            say(key_id)
    return 0


@app.command()
def make(
    file: Annotated[Path, typer.Argument(help="File of the new private key.")],
    model_signing: Annotated[
        bool,
        typer.Option("--model-signing", help="An EC key, for OpenSSF Model Signing."),
    ] = False,
) -> int:
    """Make a private key; nothing trusts it yet."""
    from guard.flow import model_keys
    from guard.flow.keys import make_key

    if model_signing:
        key_id, public = model_keys.make(file)
        say(f"made {key_id}; give {public} to who verifies; name it with `guard keys trust {file}`")
        return 0
    say(f"made {make_key(file)}; name it with `guard keys trust {file}`")
    return 0


@app.command()
def trust(
    key: Annotated[str, typer.Argument(help="File of a private key, or a recorded key's id.")],
    reason: ReasonOption,
) -> int:
    """Let a key's signatures count."""
    guard = open_service()
    from guard.flow import model_keys
    from guard.flow.keys import trust as act

    if Path(key).is_file() and model_keys.is_model_key(Path(key)):
        key_id = model_keys.trust(guard, Path(key), reason, caller(guard))
        say(f"trusted {key_id} to sign published files, and nothing else")
        return 0
    say(f"trusted {act(guard, key, reason, caller(guard))}")
    return 0


@app.command()
def distrust(
    key: Annotated[str, typer.Argument(help="Id of a trusted key.")], reason: ReasonOption
) -> int:
    """Let a key's signatures count no longer; what it signed is not served any more."""
    guard = open_service()
    from guard.flow import model_keys
    from guard.flow.keys import distrust as act

    if (found := model_keys.distrust(guard, key, reason, caller(guard))) is not None:
        say(f"distrusted {found}")
        return 0
    say(f"distrusted {act(guard, key, reason, caller(guard))}")
    return 0
