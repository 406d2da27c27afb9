"""Submit a file, or an object in a bucket, to the service."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._scans import follow
from guard.cli._service import caller, open_service
from guard.core.errors import ArtifactRejected, InputError, Unavailable

if TYPE_CHECKING:
    from guard.flow.context import Guard

app = typer.Typer(rich_markup_mode=None)
SCHEME = "s3://"
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.5


@app.command()
def submit(
    source: Annotated[str, typer.Argument(help="A model file or folder, or s3://BUCKET/KEY.")],
    name: Annotated[
        str | None, typer.Option(help="The model's name; by default, that of the file.")
    ] = None,
    version_id: Annotated[
        str | None, typer.Option(help="The object's version; the latest by default.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait for the verdict.")] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Submit a model; without --watch, exit code 0 means accepted, not cleared."""
    guard = open_service()
    from guard.flow import submit as flow

    who = caller(guard, named=False)

    if source.startswith(SCHEME):
        bucket, _, key = source.removeprefix(SCHEME).partition("/")
        if not bucket or not key or name is not None:
            raise InputError(
                "Name an object as s3://BUCKET/KEY, without --name.", code="bad_object"
            )
        nomination = flow.submit(guard, who, bucket, key, version_id)
    else:
        if version_id is not None:
            raise InputError("--version-id goes with s3://BUCKET/KEY.", code="version_of_file")
        from guard.offline_inputs import name_of

        nomination = flow.submit_file(guard, who, Path(source), name or name_of(Path(source)))
    if not watch:
        if form is Format.JSON:
            print_json({"nomination": nomination, "source": source})
        else:
            say(f"submitted {source}; `guard status` shows its scan")
        return 0
    return follow(guard, _wait_for_scan(guard, nomination), form)


def _wait_for_scan(guard: "Guard", nomination: str) -> str:
    """The id of the scan that a nomination leads to.

    Raises:
        ArtifactRejected: it leads to none; the message gives the reason.
        Unavailable: no worker examined it in time.
    """
    from guard.store import nominations
    from guard.store.session import reading

    end = time.monotonic() + WAIT_SECONDS + guard.settings.manifest_grace_seconds
    while time.monotonic() < end:
        with reading(guard.engine) as session:
            row = nominations.get(session, nomination)
        if row.scan_id is not None:
            return row.scan_id
        if row.reason:
            raise ArtifactRejected(row.reason, code="not_taken")
        time.sleep(POLL_SECONDS)
    raise Unavailable(
        "No worker took the upload in time; check that `guard up` or a worker is running."
    )
