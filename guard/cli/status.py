"""Show the state of scans and of jobs on training sets, once or until they end."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli import _jobs, _refusals, _scans
from guard.cli._output import (
    Format,
    StatusFormat,
    StatusFormatOption,
    print_json,
    print_json_line,
    say_document,
)
from guard.cli._service import open_service
from guard.core.errors import InputError

if TYPE_CHECKING:
    from guard.flow.context import Guard

MOST_REFUSALS = 5  # below the list of scans; `--refused` lists them all
app = typer.Typer(rich_markup_mode=None)


@app.command()
def status(
    scan_id: Annotated[
        str | None, typer.Argument(help="A scan or a job, or the start of its id; all by default.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Watch until the scan ends, or until Ctrl-C.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="The number of newest scans to show.")
    ] = 20,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Show the newest jobs on training sets instead.")
    ] = False,
    refused: Annotated[
        bool, typer.Option("--refused", help="Show the newest uploads refused before any scan.")
    ] = False,
    wanted: StatusFormatOption = StatusFormat.TABLE,
) -> int:
    """Show scans, uploads that were refused, and the jobs on training sets that wait or run.

    For one scan, the exit code is that of its verdict, or 2 while it has none; for one job 0 once
    it is done, else 2; for the list, 0. With sarif and junit, which show scans only, the exit code
    of a list is that of its worst verdict.
    """
    guard = open_service()
    if wanted in {StatusFormat.SARIF, StatusFormat.JUNIT}:
        if jobs or refused or (watch and scan_id is None):
            raise InputError(f"--format {wanted} shows scans only.", code="option_elsewhere")
        return _for_pipelines(guard, scan_id, limit, wanted, watch=watch)
    form = Format(wanted)
    if jobs:
        _jobs.show(_jobs.recent(guard, limit), form)
        return 0
    if refused:
        _refusals.show(_refusals.recent(guard, limit), form)
        return 0
    if scan_id is not None:
        if _is_job(guard, scan_id):
            return _job(guard, scan_id, form, watch=watch)
        if watch:
            return _scans.follow(guard, scan_id, form)
        seen = _scans.look(guard, scan_id)
        _scans.print_scans([seen], form, one=True)
        return seen.exit_code
    if watch:
        _watch_all(guard, limit, form)
    else:
        _scans.print_scans(_scans.recent(guard, limit), form)
        if form is Format.TABLE and (turned := _refusals.recent(guard, MOST_REFUSALS)):
            _refusals.show(turned, form)
        if form is Format.TABLE and (found := _jobs.recent(guard, limit, only_open=True)):
            _jobs.show(found, form)
    return 0


def _for_pipelines(
    guard: "Guard", scan_id: str | None, limit: int, form: StatusFormat, *, watch: bool
) -> int:
    """Print the verdicts on scans as SARIF or JUnit."""
    if scan_id is None:
        seen = _scans.recent(guard, limit)
    else:
        seen = [(_scans.wait if watch else _scans.look)(guard, scan_id)]
    judged = [one.judged for one in seen]
    code = max((one.exit_code for one in seen), default=0)
    if form is StatusFormat.SARIF:
        from guard.reports.sarif import verdicts_sarif

        print_json(verdicts_sarif(judged, code))
    else:
        from guard.reports.junit import verdicts_junit

        say_document(verdicts_junit(judged))
    return code


def _is_job(guard: "Guard", wanted: str) -> bool:
    """Whether a job has this id, and no scan."""
    try:
        _jobs.find(guard, wanted)
    except InputError as error:
        if error.code == "ambiguous_training_job":
            raise
        return False
    try:
        _scans.look(guard, wanted)
    except InputError:
        return True
    return False


def _job(guard: "Guard", job_id: str, form: Format, *, watch: bool) -> int:
    if watch:
        return _jobs.follow(guard, job_id, form)
    row = _jobs.find(guard, job_id)
    _jobs.show([row], form, one=True)
    return _jobs.exit_code(row)


def _watch_all(guard: "Guard", limit: int, form: Format) -> None:
    """Redraw the list on a terminal; otherwise print each change of a scan as a JSON line."""
    if form is Format.TABLE and sys.stdout.isatty():
        from rich.live import Live

        from guard.cli._render import console

        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(_scans.view(_scans.recent(guard, limit)), refresh=True)
                time.sleep(_scans.POLL_SECONDS)
    shown: dict[str, object] = {}
    while True:
        for seen in reversed(_scans.recent(guard, limit)):
            now = (seen.scan.state, seen.verdict)
            if shown.get(seen.scan.id) != now:
                shown[seen.scan.id] = now
                print_json_line(seen.to_dict())
        time.sleep(_scans.POLL_SECONDS)
