"""Check this installation, and say what to mend."""

from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say

if TYPE_CHECKING:
    from rich.text import Text

    from guard.doctor import Finding

app = typer.Typer(rich_markup_mode=None)
UNWELL = 1


@app.command()
def doctor(
    form: FormatOption = Format.TABLE,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; the same as --format json.")
    ] = False,
    skip: Annotated[
        list[str] | None, typer.Option(help="Leave out a check; may be repeated.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="How long a check may take.")
    ] = 15.0,
    uploader_profile: Annotated[
        str, typer.Option(help="AWS profile of an uploader, who must not write what was vetted.")
    ] = "",
) -> int:
    """Check settings, services, keys, clean sets and this host, and say what to mend.

    Exit code 0: nothing failed, there may be warnings; 1: something failed or could not be checked.
    Nothing is changed but for probes that are removed again.
    """
    found = _findings(frozenset(skip or ()), seconds, uploader_profile)
    if as_json or form is Format.JSON:
        print_json([one.to_dict() for one in found])
    else:
        _print(found)
    from guard.doctor import State

    well = {State.OK, State.WARNING}
    return 0 if all(one.state in well for one in found) else UNWELL


def _findings(skip: frozenset[str], seconds: float, profile: str) -> "list[Finding]":
    from guard.cli._environment import settings_here
    from guard.core.errors import InputError
    from guard.doctor import Finding, Options, State, diagnose
    from guard.logs import hide

    try:
        settings = settings_here()
    except InputError as error:
        mend = "Correct the variable; docs/settings.md lists all."
        return [Finding(State.FAILED, error.sentence, mend, "settings")]
    hide(settings)
    valid = Finding(State.OK, "The settings are valid.", "", "settings")
    options = Options(skip=skip, seconds=seconds, uploader_profile=profile)
    return [valid, *diagnose(settings, options)]


def _print(found: "list[Finding]") -> None:
    from guard.cli._render import print_table
    from guard.doctor import State

    rows = [(one.check, _shown(one.state), one.sentence, one.mend) for one in found]
    print_table(("check", "state", "finding", "mend"), rows)
    bad = sum(one.state in {State.FAILED, State.UNKNOWN} for one in found)
    notes = sum(one.state is State.WARNING for one in found)
    say(f"{len(found)} checks: {bad} failed or could not be checked, {notes} warnings")


def _shown(state: str) -> "Text":
    from rich.text import Text

    styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    return Text(str(state).replace("_", " "), style=styles.get(str(state), "bold yellow"))
