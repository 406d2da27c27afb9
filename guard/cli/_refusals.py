"""Uploads that were refused before any scan, for people and scripts."""

from typing import TYPE_CHECKING, Any

from guard.cli._output import Format, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.flow.context import Guard
    from guard.store.rows import NominationRow


def recent(guard: "Guard", limit: int) -> "list[NominationRow]":
    """The newest refusals first, one for each version of an object that no scan was made of."""
    from guard.store import nominations, scans
    from guard.store.rows import NominationState
    from guard.store.session import reading

    with reading(guard.engine) as session:
        newest: dict[tuple[str, str, str | None], NominationRow] = {}
        for row in nominations.list_recent(session, limit, state=NominationState.REFUSED):
            newest.setdefault((row.bucket, row.key, row.version_id), row)
        return [one for key, one in newest.items() if scans.find_by_object(session, *key) is None]


def show(rows: "Sequence[NominationRow]", form: Format) -> None:
    """Print refusals with their reasons on stdout."""
    if form is Format.JSON:
        print_json([_to_dict(row) for row in rows])
        return
    from guard.cli._render import print_table

    cells = [
        (f"s3://{row.bucket}/{row.key}", f"{row.received_at:%Y-%m-%d %H:%M:%S}", row.reason)
        for row in rows
    ]
    print_table(("refused upload", "since (UTC)", "why"), cells, empty="none")


def _to_dict(row: "NominationRow") -> dict[str, Any]:
    return {
        "nomination": row.id,
        "bucket": row.bucket,
        "key": row.key,
        "version_id": row.version_id,
        "received_at": row.received_at,
        "reason": row.reason,
    }
