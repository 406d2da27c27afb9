"""Alarms for people: listed, shown, and acknowledged by a signed act."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow import _aging, _renewal, _seal, _warning, away, canary
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Principal, permit
from guard.store import acts, alarms, listing
from guard.store.rows import ActRow, AlarmRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard

#: Alarms about something that lasts: the guard closes them when it is over, and nobody else does.
LASTING = frozenset(
    {_aging.EXPIRING, _aging.EXTENDED, _renewal.FAILED, _warning.ALARM, canary.ALARM, away.ALARM}
)


@dataclass(frozen=True, kw_only=True)
class Alarmed:
    """An alarm, and who acknowledged it last; `acknowledged_by` is None where nobody has."""

    row: AlarmRow
    acknowledged_by: str | None = None
    reason: str = ""
    acknowledged_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for its times."""
        return {
            **vars(self.row),
            "acknowledged_by": self.acknowledged_by,
            "acknowledged_at": self.acknowledged_at,
            "reason": self.reason,
        }


def listed(
    guard: "Guard", limit: int = 50, *, closed: bool = False, scope: Scope = EVERYTHING
) -> list[Alarmed]:
    """Open alarms, the newest first; with `closed` those that are over as well."""
    with reading(guard.engine) as session:
        rows = (
            alarms.list_recent(session, limit, scope)
            if closed
            else alarms.open_alarms(session, scope=scope)
        )
        return _with_acts(session, rows[:limit])


def page(
    guard: "Guard",
    limit: int,
    *,
    before: listing.Key | None = None,
    closed: bool = False,
    scope: Scope = EVERYTHING,
) -> list[Alarmed]:
    """A page of `listed`, behind the key of the last alarm of the page before."""
    with reading(guard.engine) as session:
        rows = listing.alarms(session, limit, before=before, closed=closed, scope=scope)
        return _with_acts(session, rows)


def show(guard: "Guard", wanted: str, scope: Scope = EVERYTHING) -> Alarmed:
    """One alarm, by its id or the start of it.

    Raises:
        InputError: there is not exactly one.
    """
    with reading(guard.engine) as session:
        return _with_acts(session, [alarms.get(session, wanted, scope)])[0]


def acknowledge(guard: "Guard", who: Principal | str, wanted: str, reason: str) -> Alarmed:
    """Record that a person has seen an alarm, and close it where nothing lasts.

    One about something that lasts stays open until the guard sees that it is over.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: there is no such alarm, it is closed, or no reason was given.
    """
    if not reason.strip():
        raise InputError("Say what was found or done with --reason.", code="alarm_no_reason")
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.ACKNOWLEDGE)
        row = alarms.get(session, wanted)
        if row.cleared_at is not None:
            raise InputError(f"The alarm {row.id} is closed already.", code="alarm_closed")
        facts = {"kind": row.kind, "about": row.subject}
        note(guard, session, who, Act.ACKNOWLEDGE, row.id, reason.strip(), facts)
        if not lasts(row):
            alarms.clear(session, row.kind, row.subject, guard.now())
        made = _with_acts(session, [alarms.get(session, row.id)])[0]
    settle(guard)
    return made


def lasts(row: AlarmRow) -> bool:
    """Whether the guard itself closes this alarm once what it is about is over."""
    return row.kind in LASTING or row.subject == _seal.SUBJECT


def _with_acts(session: "Session", rows: Sequence[AlarmRow]) -> list[Alarmed]:
    found = acts.about(session, [row.id for row in rows], Act.ACKNOWLEDGE)
    last: dict[str, ActRow] = {act.subject: act for act in found}
    return [
        Alarmed(row=row)
        if (act := last.get(row.id)) is None
        else Alarmed(
            row=row, acknowledged_by=act.principal, reason=act.detail, acknowledged_at=act.at
        )
        for row in rows
    ]
