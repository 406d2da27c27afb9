"""The counts of rows that the metrics show."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from guard.store import ledger
from guard.store._read import table
from guard.store.rows import PublicationState
from guard.store.tables import (
    Alarm,
    DeadLetter,
    LedgerEntry,
    Nomination,
    Outbox,
    Publication,
    Scan,
)

_OUTBOX = table(Outbox)
_ALARMS = table(Alarm)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The number of rows of each kind; kinds without rows are left out.

    `oldest_due` is the time at which the oldest due message became due.
    """

    scans: Mapping[str, int]
    nominations: Mapping[str, int]
    verdicts: Mapping[str, int]
    unsent: int
    oldest_due: datetime | None
    dead_letters: int
    alarms: Mapping[str, int]
    expiring: int
    expired: int


def take(s: Session, now: datetime, *, window: timedelta = timedelta()) -> Counts:
    """Count everything as of `now`.

    `expiring` are the served artifacts whose newest verdict ends within `window`, `expired` those
    for which it has ended.
    """
    ends = _ends(s)
    unsent = _OUTBOX.c.sent_at.is_(None)
    due = select(func.min(_OUTBOX.c.not_before)).where(unsent, _OUTBOX.c.not_before <= now)
    return Counts(
        scans=_by(s, table(Scan).c.state),
        nominations=_by(s, table(Nomination).c.state),
        verdicts=_by(s, table(LedgerEntry).c.verdict),
        unsent=_count(s, _OUTBOX, unsent),
        oldest_due=s.execute(due).scalar(),
        dead_letters=_count(s, table(DeadLetter)),
        alarms=_by(s, _ALARMS.c.kind, _ALARMS.c.cleared_at.is_(None)),
        expiring=sum(now < end <= now + window for end in ends),
        expired=sum(end <= now for end in ends),
    )


def _ends(s: Session) -> list[datetime]:
    """When the verdict that counts on each served artifact ends."""
    served, verdicts = table(Publication).c, table(LedgerEntry).c
    active = select(served.digest).where(served.state == PublicationState.ACTIVE)
    newest = ledger.counting().where(verdicts.artifact_digest.in_(active))
    return list(s.execute(select(verdicts.expires_at).where(verdicts.seq.in_(newest))).scalars())


def _by(s: Session, column: Any, *where: Any) -> dict[str, int]:
    rows = s.execute(select(column, func.count()).where(*where).group_by(column))
    return dict(sorted((str(kind), int(count)) for kind, count in rows))


def _count(s: Session, source: Any, *where: Any) -> int:
    return int(s.execute(select(func.count()).select_from(source).where(*where)).scalar_one())
