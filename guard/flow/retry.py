"""Dead letters: listed, shown, and tried again by a signed act.

A scan that has no decision goes through all its stages again, whose evidence is kept under its key;
one that was decided takes up the stage behind the decision again. No scan is decided twice by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from guard.core.errors import InputError
from guard.core.roles import Act
from guard.core.states import UNDECIDED, ScanState
from guard.flow import dead_letter
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Principal, permit
from guard.store import acts, alarms, dead_letters, ledger, nominations, outbox, scans
from guard.store.rows import ActRow, DeadLetterRow, NominationState
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard

#: Where a scan that was decided takes up a stage again.
_BEHIND = {"purify": ScanState.PURIFYING, "publish": ScanState.PUBLISHING}


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter, and who had it tried again last; `retried_by` is None where nobody has."""

    row: DeadLetterRow
    retried_by: str | None = None
    retried_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for its times."""
        return {**vars(self.row), "retried_by": self.retried_by, "retried_at": self.retried_at}


def listed(guard: "Guard", limit: int = 50, scope: Scope = EVERYTHING) -> list[Letter]:
    """Dead letters, the newest first."""
    with reading(guard.engine) as session:
        return _with_acts(session, dead_letters.list_all(session, limit, scope))


def show(guard: "Guard", wanted: str, scope: Scope = EVERYTHING) -> Letter:
    """One dead letter, by its id or the start of it.

    Raises:
        InputError: there is not exactly one.
    """
    with reading(guard.engine) as session:
        return _with_acts(session, [dead_letters.get(session, wanted, scope)])[0]


def retry(guard: "Guard", who: Principal | str, wanted: str) -> Letter:
    """Have a message handled again, and close its alarm.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: there is no such letter, what it is about does not rest, or nothing is left to
            be tried; the sentence says what to do instead.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.RETRY)
        row = dead_letters.get(session, wanted)
        if "scan_id" in row.payload:
            _scan_again(guard, session, row)
        else:
            _nominate_again(guard, session, row)
        facts = {name: str(value) for name, value in row.payload.items()}
        note(guard, session, who, Act.RETRY, row.id, f"{row.task}: {row.error}", facts)
        about = dead_letter.subject(row.task, row.payload)
        alarms.clear(session, dead_letter.ALARM, about, guard.now())
        made = _with_acts(session, [row])[0]
    settle(guard)
    return made


def _scan_again(guard: "Guard", session: "Session", row: DeadLetterRow) -> None:
    scan = scans.get(session, str(row.payload["scan_id"]))
    if scan.state is not ScanState.FAILED:
        raise _refused(f"Scan {scan.id} is {scan.state}, so there is nothing to try again.")
    if scan.parent_scan_id is not None:
        # Its parent went on without it: a tournament has its next candidate, a re-scan its root.
        raise _refused(
            f"Scan {scan.id} came of scan {scan.parent_scan_id}, which went on without it; "
            f"`guard rescan {scan.parent_scan_id}` scans that again."
        )
    known = ledger.get(session, scan.verdict_id) if scan.verdict_id is not None else None
    now = guard.now()
    if known is None or known.verdict in UNDECIDED:
        detail = replace(scan.detail, outcome=None)
        fields: dict[str, Any] = {"error": None, "verdict_id": None, "detail": detail}
        scans.move(session, scan.id, ScanState.QUEUED, now, **fields)
        outbox.add(session, "inspect", {"scan_id": scan.id}, now)
    elif row.task in _BEHIND:
        scans.move(session, scan.id, _BEHIND[row.task], now, error=None)
        outbox.add(session, row.task, {"scan_id": scan.id}, now)
    else:
        raise _refused(
            f"Scan {scan.id} is decided ({known.verdict}); `guard rescan {scan.id}` decides anew."
        )


def _nominate_again(guard: "Guard", session: "Session", row: DeadLetterRow) -> None:
    wanted = str(row.payload.get("nomination_id", ""))
    if not wanted:
        raise _refused(
            "The message names no scan and no upload; the guard takes up by itself what waits."
        )
    if nominations.get(session, wanted).state is not NominationState.NEW:
        raise _refused(f"Nomination {wanted} is settled; submit the object again.")
    outbox.add(session, "receive", {"nomination_id": wanted}, guard.now())


def _refused(sentence: str) -> InputError:
    return InputError(sentence, code="nothing_to_retry")


def _with_acts(session: "Session", rows: Sequence[DeadLetterRow]) -> list[Letter]:
    found = acts.about(session, [row.id for row in rows], Act.RETRY)
    last: dict[str, ActRow] = {act.subject: act for act in found}
    return [
        Letter(row=row)
        if (act := last.get(row.id)) is None
        else Letter(row=row, retried_by=act.principal, retried_at=act.at)
        for row in rows
    ]
