"""Start the whole guard on this machine, reachable on loopback only."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from guard.cli._environment import inherited
from guard.cli._output import Format, FormatOption, print_json, print_json_line, remark, say

if TYPE_CHECKING:
    from guard.local.component import Status

app = typer.Typer(rich_markup_mode=None)


@app.command()
def up(form: FormatOption = Format.TABLE) -> int:
    """Start everything, show one table once it works, and stop everything on Ctrl-C.

    Parts that already run elsewhere are used instead: DATABASE_URL, REDIS_URL, GUARD_S3_ENDPOINT,
    GUARD_TORCHSERVE_MANAGEMENT, GUARD_OPEN_INFERENCE_MANAGEMENT.
    """
    from guard.local.supervisor import Stack, interrupted_by_signals
    from guard.settings import load_settings

    environment = inherited()
    folder = load_settings(environment).data_dir
    try:
        with interrupted_by_signals(), Stack(folder, environment) as stack:
            stack.start(_starting)
            _print(stack.status(), form)
            if form is Format.TABLE:
                say(f"the review console: {stack.api_address}/console/")
                say(
                    f"data in {folder}; follow scans with `guard status --watch` in another "
                    "terminal; Ctrl-C stops everything"
                )
            stack.wait()
    except KeyboardInterrupt:
        remark("stopped")
    return 0


def _starting(status: "Status") -> None:
    if sys.stderr.isatty():
        remark(f"{status.component} {status.state}")
    else:
        print_json_line(
            {"event": "component", "component": status.component, "state": str(status.state)},
            err=True,
        )


def _print(rows: Sequence["Status"], form: Format) -> None:
    if form is Format.JSON:
        print_json(
            [
                {
                    "component": row.component,
                    "state": str(row.state),
                    "address": row.address,
                    "pid": row.pid,
                }
                for row in rows
            ]
        )
        return
    from guard.cli._render import print_table

    cells = [(row.component, row.state, row.address, row.pid, row.detail) for row in rows]
    print_table(("part", "state", "address", ">pid", "detail"), cells)
