"""What the metrics show beside counts of rows: how long things wait, and what ends soon.

Each query reads an index or a table that stays small; none grows with the scans that are done.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal_column, select
from sqlalchemy.orm import Session

from guard.core.states import ScanState
from guard.core.tallies import Key
from guard.core.training_jobs import OPEN_STATES
from guard.store import ledger, tallies
from guard.store._leases import free
from guard.store._read import table
from guard.store.rows import NominationState, PublicationState
from guard.store.tables import (
    Alarm,
    Canary,
    CheckpointNote,
    LedgerEntry,
    Nomination,
    Publication,
    Scan,
)
from guard.store.training_tables import TrainingJob

_SCANS, _NOMINATIONS, _JOBS = table(Scan), table(Nomination), table(TrainingJob)
_CANARIES, _ALARMS, _NOTES = table(Canary), table(Alarm), table(CheckpointNote)
#: The task that a scan in this state waits for, or is at.
STAGE_OF: Mapping[ScanState, str] = {
    ScanState.QUEUED: "inspect",
    ScanState.FETCHING: "inspect",
    ScanState.INSPECTING: "inspect",
    ScanState.DETECTING: "detect",
    ScanState.DECIDING: "decide",
    ScanState.PURIFYING: "purify",
    ScanState.PUBLISHING: "publish",
}
STAGES = ("receive", "inspect", "detect", "decide", "purify", "publish", "sift", "retrain")
#: Upper ends, in days, of the classes of verdicts by how soon they end.
DAYS = (1, 2, 3, 7, 14, 30)
#: Canaries run once a day, and every five minutes on a worker that fails.
CANARY_WINDOW, MOST_CANARIES = timedelta(days=2), 2000


@dataclass
class Line:
    """The work of one stage: how much waits and runs, and when the oldest of it began."""

    waiting: int = 0
    running: int = 0
    oldest: datetime | None = None

    def add(self, count: int, since: datetime | None, *, running: bool) -> None:
        """Add some of it."""
        if running:
            self.running += count
        else:
            self.waiting += count
            if since is not None:
                self.oldest = since if self.oldest is None else min(self.oldest, since)


@dataclass(frozen=True, kw_only=True)
class CanaryState:
    """The newest runs of the workers that ran one: of each method whether all of them passed."""

    passed: Mapping[str, bool] = field(default_factory=dict)
    last: datetime | None = None
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What there is to watch at one time.

    `ending` has the number of served artifacts whose verdict ends within each of `DAYS`; `behind`
    are served on a verdict of another policy than those in force; `deviations` were ever found
    between what is served and what may be.
    """

    lines: Mapping[str, Line]
    oldest_scan: datetime | None
    canaries: CanaryState
    served: int
    behind: int
    ending: Mapping[int, int]
    deviations: int
    checkpoint: datetime | None
    counted: Mapping[Key, float]


def take(s: Session, now: datetime, *, policies: Collection[str]) -> Watched:
    """Look at everything as of `now`; `policies` are the digests of those in force."""
    lines, oldest = _lines(s, now)
    ends = s.execute(_served()).all()
    deviations = select(func.count()).where(_ALARMS.c.kind.like("serving~_%", escape="~"))
    newest = select(_NOTES.c.at).order_by(_NOTES.c.number.desc()).limit(1)
    return Watched(
        lines=lines,
        oldest_scan=oldest,
        canaries=canaries(s, now),
        served=len(ends),
        behind=sum(row.policy_digest not in policies for row in ends),
        ending={
            days: sum(now < row.expires_at <= now + timedelta(days=days) for row in ends)
            for days in DAYS
        },
        deviations=int(s.execute(deviations).scalar_one()),
        checkpoint=s.execute(newest).scalar(),
        counted=tallies.every(s),
    )


def _lines(s: Session, now: datetime) -> tuple[dict[str, Line], datetime | None]:
    lines, oldest = {stage: Line() for stage in STAGES}, None
    for row in s.execute(_by_state(_SCANS.c, STAGE_OF, free(_SCANS, now))):
        lines[STAGE_OF[row.state]].add(row.number, row.since, running=not row.idle)
        oldest = row.first if oldest is None else min(oldest, row.first)
    new = (func.count().label("number"), func.min(_NOMINATIONS.c.received_at).label("since"))
    there = s.execute(select(*new).where(_NOMINATIONS.c.state == NominationState.NEW)).one()
    lines["receive"].add(there.number, there.since, running=False)
    for row in s.execute(_by_state(_JOBS.c, OPEN_STATES, free(_JOBS, now), _JOBS.c.kind)):
        lines[str(row.kind)].add(row.number, row.since, running=not row.idle)
    return lines, oldest


def _by_state(columns: Any, states: Collection[Any], idle: ColumnElement[bool], *more: Any) -> Any:
    """Open rows by state and by whether nobody holds them."""
    # By its name: a repeated expression with parameters of its own would be another one.
    by = (columns.state, *more, literal_column("idle"))
    return (
        select(
            columns.state,
            *more,
            case((idle, 1), else_=0).label("idle"),
            func.count().label("number"),
            func.min(columns.updated_at).label("since"),
            func.min(columns.created_at).label("first"),
        )
        .where(columns.state.in_(list(states)))
        .group_by(*by)
    )


def _served() -> Select[tuple[datetime, str]]:
    """End and policy of the verdict that counts on each served artifact."""
    served, verdicts = table(Publication).c, table(LedgerEntry).c
    active = select(served.digest).where(served.state == PublicationState.ACTIVE)
    newest = ledger.counting().where(verdicts.artifact_digest.in_(active))
    return select(verdicts.expires_at, verdicts.policy_digest).where(verdicts.seq.in_(newest))


def canaries(s: Session, now: datetime) -> CanaryState:
    """The newest canary of every worker that ran one of late."""
    rows = s.execute(
        select(_CANARIES.c.worker, _CANARIES.c.at, _CANARIES.c.trials)
        .where(_CANARIES.c.at > now - CANARY_WINDOW)
        .order_by(_CANARIES.c.at.desc(), _CANARIES.c.id)
        .limit(MOST_CANARIES)
    ).all()
    newest = {row.worker: row for row in reversed(rows)}
    passed: dict[str, bool] = {}
    for row in newest.values():
        for trial in row.trials:
            name = str(trial["method"])
            passed[name] = passed.get(name, True) and bool(trial["passed"])
    return CanaryState(passed=passed, last=rows[0].at if rows else None, workers=len(newest))
