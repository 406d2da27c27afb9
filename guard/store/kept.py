"""How long the rows of each table are kept, and the deletion of those that nothing reads any more.

`STAYS` and `PASSING` together name every table once; a test fails where a new one is in neither.
Deletion is bounded: each call deletes at most so many rows of one table, in a transaction of the
caller's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, false, func, or_, select
from sqlalchemy.orm import Session

from guard.store._read import table
from guard.store._table import Base
from guard.store.access_tables import BrowserSession, LogoutStatement
from guard.store.console_tables import OrderRecord
from guard.store.identities import NO_SECRET
from guard.store.notify_tables import Delivery, DeliveryAttempt, HookEvent
from guard.store.order_rows import OrderState
from guard.store.rows import NominationState
from guard.store.tables import Canary, Nomination, Outbox, Token

_OUTBOX, _SESSIONS, _TOKENS = table(Outbox).c, table(BrowserSession).c, table(Token).c
_ORDERS, _CANARIES = table(OrderRecord).c, table(Canary).c
_LOGOUTS = table(LogoutStatement).c
_NOMINATIONS = table(Nomination)


@dataclass(frozen=True, kw_only=True)
class Passing:
    """Rows that are deleted after a time; what must stay of them is in another table.

    Attributes:
        entity: the table.
        kept: the setting that says for how long.
        old: the condition of rows to delete, where the time is over at a given moment; None where
            `guard.store.deliveries.prune` deletes them with what they belong to.
        why: what nobody misses, for people.
    """

    entity: type[Base]
    kept: str
    why: str
    old: Callable[[datetime], ColumnElement[bool]] | None = None


def _old_nomination(before: datetime) -> ColumnElement[bool]:
    """Notices that led nowhere, but of each object that is refused the newest, with its reason."""
    one, newer = _NOMINATIONS.c, _NOMINATIONS.alias("newer")
    superseded = exists().where(
        newer.c.bucket == one.bucket,
        newer.c.key == one.key,
        newer.c.version_id.is_not_distinct_from(one.version_id),
        newer.c.received_at > one.received_at,
    )
    refused = and_(one.state == NominationState.REFUSED, superseded)
    nowhere = or_(one.state == NominationState.IGNORED, refused)
    return and_(nowhere, one.received_at < before)


_SENT, _ENDED, _NOTES = "keep_sent_hours", "keep_ended_days", "notify_keep_days"
PASSING: Mapping[str, Passing] = {
    one.entity.__tablename__: one
    for one in (
        Passing(
            entity=Outbox,
            kept=_SENT,
            why="a message that was sent",
            old=lambda before: _OUTBOX.sent_at < before,
        ),
        Passing(
            entity=BrowserSession,
            kept=_ENDED,
            why="a session whose time is over; signing in and out are acts",
            old=lambda before: _SESSIONS.expires_at < before,
        ),
        Passing(
            entity=Token,
            kept=_ENDED,
            why="what a sign-on gave, after its end; tokens that people made stay",
            old=lambda before: and_(_TOKENS.hash == NO_SECRET, _TOKENS.expires_at < before),
        ),
        Passing(
            entity=LogoutStatement,
            kept=_ENDED,
            why="that a provider's log-out was received, long after it could be sent again",
            old=lambda before: _LOGOUTS.at < before,
        ),
        Passing(
            entity=OrderRecord,
            kept=_ENDED,
            why="an order of the console that was answered; what was done is an act",
            old=lambda before: and_(
                # One that is begun and not ended after so long was a worker's that died.
                _ORDERS.state != OrderState.WAITING,
                func.coalesce(_ORDERS.ended_at, _ORDERS.at) < before,
            ),
        ),
        Passing(
            entity=Canary,
            kept=_ENDED,
            why="a run of the canary, which counts for a day",
            old=lambda before: _CANARIES.at < before,
        ),
        Passing(
            entity=Nomination,
            kept=_ENDED,
            why="a notice that led nowhere; of each refused object the newest stays",
            old=_old_nomination,
        ),
        Passing(entity=HookEvent, kept=_NOTES, why="what was handed on"),
        Passing(entity=Delivery, kept=_NOTES, why="goes with its event"),
        Passing(entity=DeliveryAttempt, kept=_NOTES, why="goes with its delivery"),
    )
}
_EVIDENCE = "evidence: what a verdict rests on, as long as there is the verdict"
_AUDIT = "audit: who did or decided what, append-only or sealed by the chain"
_UPLOAD = "one for each upload, scan or verdict, to which it says where they come from"
_SETTING = "set by people: as many as there are models, people, projects or destinations"
#: Tables whose rows stay, with the reason.
STAYS: Mapping[str, str] = {
    "acts": _AUDIT,
    "alarms": "audit: at most one is open for each kind and subject; closed ones are what happened",
    "artifacts": _EVIDENCE,
    "checkpoint_notes": _AUDIT,
    "claims": _SETTING,
    "cleansets": _EVIDENCE,
    "dead_letters": "for a person: each is a message that nobody could handle, and a fault",
    "evidence": _EVIDENCE,
    "exhibits": _UPLOAD,
    "heartbeats": "one row for each thing that is done again and again",
    "hooks": _SETTING,
    "identities": _SETTING,
    "ledger_acts": _AUDIT,
    "methods": "one row for each method",
    "prefix_owners": _SETTING,
    "principals": "audit: so that a name is never given to another person",
    "project_members": _SETTING,
    "project_uploads": _UPLOAD,
    "projects": _SETTING,
    "publications": "audit: a version of a name is never used twice",
    "reviews": _AUDIT,
    "revocations": "audit: a digest that must never be served again",
    "scans": _UPLOAD,
    "tallies": "one row for each counter; labels are bounded (guard.store.tallies)",
    "training_jobs": _EVIDENCE,
    "training_sets": _SETTING,
    "uploaders": _UPLOAD,
    "verdicts": _AUDIT,
}


def prune(s: Session, *, name: str, before: datetime, limit: int) -> int:
    """Delete at most `limit` old rows of the table `name`; returns how many.

    Args:
        s: writes.
        name: one of `PASSING`; where its rows have no condition of their own, none is deleted.
        before: rows that were over by then are old.
        limit: the most rows.
    """
    one = PASSING[name]
    rows = table(one.entity)
    (key,) = rows.primary_key.columns
    some = select(key).where(one.old(before) if one.old else false()).limit(limit)
    # One after the other: on PostgreSQL a subquery with a limit may be run more than once.
    found = list(s.execute(some).scalars())
    if found:
        s.execute(delete(rows).where(key.in_(found)))
    return len(found)
