"""Show scans to people and scripts, and follow a scan until it ends."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard.cli._output import Format, print_json, print_json_line
from guard.core.errors import IntegrityMismatch
from guard.core.plain import to_plain
from guard.core.progress import left_text
from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict, exit_code

if TYPE_CHECKING:
    from rich.console import RenderableType

    from guard.core.verdict import Gated
    from guard.core.waivers import Waiver
    from guard.flow.context import Guard
    from guard.reports.judged import Judged
    from guard.store.rows import LedgerRow, ScanRow

FAILED, WAITING = 2, 2
POLL_SECONDS = 1.0
RESTING = frozenset({ScanState.DONE, ScanState.FAILED})


@dataclass(frozen=True)
class Seen:
    """A scan with its verdict in force."""

    scan: "ScanRow"
    row: "LedgerRow | None"
    expired: bool = False
    waivers: "tuple[Waiver, ...]" = ()
    gate: "Gated | None" = None
    reasons: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """What the verdict in force says; None where there is none."""
        return self.row.verdict if self.row is not None else None

    @property
    def exit_code(self) -> int:
        """Only a verdict can be 0: a scan that still runs, or failed, vouches for nothing.

        Nor does a verdict that has expired.
        """
        if self.scan.state is ScanState.FAILED:
            return FAILED
        return WAITING if self.verdict is None else exit_code(self.verdict, expired=self.expired)

    @property
    def judged(self) -> "Judged":
        """The verdict as a pipeline reads it."""
        from guard.reports.judged import Judged

        row = self.scan
        more = (f"Scan {row.id} is {row.state}.",) if self.verdict is None else ()
        return Judged(
            name=row.name,
            digest=row.canonical_digest or row.upload_digest or "",
            verdict=self.verdict,
            code=self.exit_code,
            reasons=(*self.reasons, *more, *([row.error] if row.error else [])),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        row = self.scan
        return {
            "id": row.id,
            "name": row.name,
            "state": str(row.state),
            "verdict": str(self.verdict) if self.verdict is not None else None,
            "verdict_id": row.verdict_id,
            "expired": self.expired,
            "gate": to_plain(self.gate),
            "expires_at": self.row.expires_at.isoformat() if self.row is not None else None,
            "bucket": row.bucket,
            "key": row.key,
            "version_id": row.version_id,
            "digest": row.canonical_digest,
            "upload_digest": row.upload_digest,
            "cleanset": row.cleanset_name,
            "submitted_by": row.submitted_by,
            "error": row.error,
            "reasons": list(self.reasons),
            "waivers": to_plain(self.waivers),
            "not_published": row.detail.not_published,
            "cleanset_wish": row.detail.cleanset_wish,
            "progress": to_plain(row.running),
            "created_at": row.created_at.isoformat(),
            "updated_at": row.updated_at.isoformat(),
        }


def look(guard: "Guard", scan_id: str) -> Seen:
    """One scan, by its id or an unambiguous start of it."""
    from guard.store import ledger, scans
    from guard.store.session import reading

    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        return _seen(scan, ledger.get(session, scan.verdict_id) if scan.verdict_id else None, guard)


def _seen(scan: "ScanRow", row: "LedgerRow | None", guard: "Guard") -> Seen:
    if row is None:
        return Seen(scan, None)
    from guard.flow.signed import signed

    try:
        known = signed(row.envelope)
    except IntegrityMismatch:
        # `guard verify` names it, and the gate refuses the verdict.
        return Seen(scan, row, row.expires_at <= guard.now())
    return Seen(
        scan,
        row,
        row.expires_at <= guard.now(),
        known.facts.waivers,
        known.gate,
        known.facts.reasons,
    )


def recent(guard: "Guard", limit: int) -> list[Seen]:
    """The newest scans first."""
    from guard.store import ledger, scans
    from guard.store.session import reading

    with reading(guard.engine) as session:
        return [
            _seen(row, ledger.get(session, row.verdict_id) if row.verdict_id else None, guard)
            for row in scans.list_recent(session, limit)
        ]


def follow(guard: "Guard", scan_id: str, form: Format) -> int:
    """Show a scan until it is done or has failed, and return the exit code of its verdict.

    On a terminal one table is redrawn; otherwise each change is one JSON line on stderr. The final
    state goes to stdout.
    """
    if form is Format.TABLE and sys.stdout.isatty():
        from rich.live import Live

        seen = look(guard, scan_id)
        from guard.cli._render import console

        with Live(view([seen]), console=console(), auto_refresh=False) as live:
            while not _rests(seen):
                time.sleep(POLL_SECONDS)
                seen = look(guard, scan_id)
                live.update(view([seen]), refresh=True)
        return seen.exit_code
    seen = wait(guard, scan_id)
    print_scans([seen], form, one=True)
    return seen.exit_code


def wait(guard: "Guard", scan_id: str) -> Seen:
    """Wait until a scan is done or has failed; each change is one JSON line on stderr."""
    seen, shown = look(guard, scan_id), dict[str, Any]()
    while True:
        keys = ("id", "state", "verdict", "expired", "gate", "progress")
        now = {key: seen.to_dict()[key] for key in keys}
        if now != shown:
            print_json_line({"event": "scan", **now}, err=True)
            shown = now
        if _rests(seen):
            return seen
        time.sleep(POLL_SECONDS)
        seen = look(guard, scan_id)


def _rests(seen: Seen) -> bool:
    return seen.scan.state in RESTING


def print_scans(rows: Sequence[Seen], form: Format, *, one: bool = False) -> None:
    """Print scans on stdout; with `one`, the JSON is the object itself instead of a list."""
    if form is Format.JSON:
        print_json(rows[0].to_dict() if one else [row.to_dict() for row in rows])
    else:
        from guard.cli._render import console

        console().print(view(rows, one=one) if rows else "none")


def view(rows: Sequence[Seen], *, one: bool = False) -> "RenderableType":
    """Scans as a table, with the first reason of each refusal, or with `one` all of them."""
    from guard.cli._render import table, verdict_text

    return table(
        ("scan", "model", "state", "verdict", "uploaded as", "since (UTC)", "remark"),
        [
            (
                seen.scan.id[:12],
                seen.scan.name,
                seen.scan.state,
                verdict_text(seen.verdict, expired=seen.expired),
                f"s3://{seen.scan.bucket}/{seen.scan.key}",
                f"{seen.scan.created_at:%Y-%m-%d %H:%M:%S}",
                _remark(seen, one=one),
            )
            for seen in rows
        ],
    )


def _remark(seen: Seen, *, one: bool) -> str:
    stated = seen.gate.sentence if seen.gate is not None else ""
    waived = (waiver.sentence for waiver in seen.waivers)
    error, unpublished = seen.scan.error, seen.scan.detail.not_published
    # The error of a scan that ended without a decision is its verdict's reasons.
    refused = seen.verdict is not None and seen.verdict not in SERVABLE_VERDICTS and not error
    reasons = seen.reasons if refused else ()
    more = f"(and {len(reasons) - 1} more)" if len(reasons) > 1 and not one else ""
    shown = reasons if one else reasons[:1]
    return " ".join(
        filter(None, (_running(seen.scan), stated, error, unpublished, *shown, more, *waived))
    )


def _running(scan: "ScanRow") -> str:
    if (progress := scan.running) is None:
        return ""
    left = left_text(progress.seconds_left)
    return f"{progress.done:.0%} {progress.note}{f', {left}' if left else ''}"
