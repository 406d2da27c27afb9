"""Jobs on training sets for people and scripts: ask, cancel, show, and follow one to its end."""

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.cli._output import Format, print_json, print_json_line, say
from guard.cli._service import caller, open_service
from guard.core.plain import to_plain
from guard.core.training_jobs import OPEN_STATES, JobKind, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from guard.flow.context import Guard
    from guard.flow.training_jobs import Asked
    from guard.store.training_rows import TrainingJobRow

POLL_SECONDS = 1.0
NOT_DONE = 2  # exit code of a job that still runs, failed or was cancelled


def ask(asked: "Asked", form: Format) -> int:
    """Have the service do a job, and print it; 0 says that it was taken, not what came of it."""
    from guard.flow.training_jobs import request

    guard = open_service()
    job = request(guard, caller(guard, named=False), asked)
    if form is Format.JSON:
        print_json(to_dict(job))
    else:
        say(f"{job.kind} job {job.id} is {job.state}; `guard status {job.id[:12]}` shows it")
    return 0


def cancel(job_id: str, form: Format) -> int:
    """Have a job end, and print it."""
    from guard.flow import training_jobs

    guard = open_service()
    job = training_jobs.cancel(guard, caller(guard, named=False), job_id)
    if form is Format.JSON:
        print_json(to_dict(job))
    elif job.state is JobState.CANCELLED:
        say(f"job {job.id} is cancelled")
    else:
        say(f"job {job.id} ends within seconds, or as soon as a worker has it")
    return 0


def model_named(like: str) -> str:
    """The name by which the service knows a model: as given, or the digest of a local file."""
    path = Path(like)
    if not path.exists():
        return like
    from guard.offline_inputs import inspect_at

    with tempfile.TemporaryDirectory() as folder:
        return inspect_at(path, Path(folder)).digest


def find(guard: "Guard", job_id: str) -> "TrainingJobRow":
    """One job, by its id or an unambiguous start of it."""
    from guard.flow import training_jobs

    return training_jobs.find(guard, job_id)


def recent(guard: "Guard", limit: int, *, only_open: bool = False) -> "list[TrainingJobRow]":
    """The newest jobs first."""
    from guard.flow import training_jobs

    return training_jobs.recent(guard, limit, only_open=only_open)


def show(rows: "Sequence[TrainingJobRow]", form: Format, *, one: bool = False) -> None:
    """Print jobs on stdout; `one` is shown with its sift's report, and is no list in JSON."""
    if form is Format.JSON:
        print_json(to_dict(rows[0]) if one else [to_dict(row) for row in rows])
        return
    from guard.cli._render import console

    console().print(view(rows) if rows else "none")
    if one:
        _print_report(rows[0])


def follow(guard: "Guard", job_id: str, form: Format) -> int:
    """Show a job until it has ended: on a terminal one table, otherwise each change as a line."""
    row = find(guard, job_id)
    if form is Format.TABLE and sys.stdout.isatty():
        from rich.live import Live

        from guard.cli._render import console

        with Live(view([row]), console=console(), auto_refresh=False) as live:
            while row.state in OPEN_STATES:
                time.sleep(POLL_SECONDS)
                row = find(guard, job_id)
                live.update(view([row]), refresh=True)
        _print_report(row)
        return exit_code(row)
    shown: tuple[Any, ...] = ()
    while True:
        if (now := (row.state, row.done, row.note)) != shown:
            shown = now
            line = {key: to_dict(row)[key] for key in ("id", "state", "done", "note")}
            print_json_line({"event": "job", **line}, err=True)
        if row.state not in OPEN_STATES:
            break
        time.sleep(POLL_SECONDS)
        row = find(guard, job_id)
    show([row], form, one=True)
    return exit_code(row)


def _print_report(row: "TrainingJobRow") -> None:
    """The report of a sift that is done, as `guard sift` prints it."""
    if row.kind is not JobKind.SIFT or row.result is None:
        return
    from guard.cli._sift_view import print_sift
    from guard.core.plain import from_plain
    from guard.core.sift import SiftReport

    print_sift(from_plain(SiftReport, row.result), total=row.result["suspects_total"])


def exit_code(row: "TrainingJobRow") -> int:
    """0 for a job that is done; what it is worth, its verdict or report says."""
    return 0 if row.state is JobState.DONE else NOT_DONE


def to_dict(row: "TrainingJobRow") -> dict[str, Any]:
    """JSON-ready."""
    return {
        "id": row.id,
        "kind": str(row.kind),
        "state": str(row.state),
        "model": row.artifact_digest,
        "scan_id": row.scan_id,
        "training_set": to_plain(row.wanted.training_set),
        "method": row.wanted.method,
        "parameters": dict(row.wanted.parameters),
        "principal": row.principal,
        "cancelled_by": row.cancelled_by,
        "done": row.done,
        "note": row.note,
        "seconds_left": row.seconds_left,
        "spent_seconds": row.spent_seconds,
        "budget_seconds": row.budget_seconds,
        "child_digest": row.child_digest,
        "child_scan_id": row.child_scan_id,
        "error": row.error,
        "code": row.code,
        "result": row.result,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
        "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
    }


def view(rows: "Sequence[TrainingJobRow]") -> "RenderableType":
    """Jobs as a table."""
    from guard.cli._render import table

    return table(
        ("job", "kind", "model", "training set", "state", "done", "left", "remark"),
        [
            (
                row.id[:12],
                f"{row.kind} {row.wanted.method}".strip(),
                row.artifact_digest[:12],
                row.wanted.training_set.uri,
                "ending" if row.state in OPEN_STATES and row.cancelled_by else row.state,
                f"{row.done:.0%}",
                _left(row),
                _remark(row),
            )
            for row in rows
        ],
    )


def _left(row: "TrainingJobRow") -> str:
    seconds = row.seconds_left
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _remark(row: "TrainingJobRow") -> str:
    if row.error is not None:
        return row.error
    if row.child_scan_id is not None:
        return f"vetted by scan {row.child_scan_id[:12]}"
    if row.result is not None and "verdict" in row.result:
        return str(row.result["verdict"]).replace("_", " ")
    return row.note
