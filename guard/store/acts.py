"""What principals did; append-only. `guard.store.ledger_acts` seals each row by its digest."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from guard.core.ledger import DONE
from guard.core.roles import Act
from guard.store._read import many, rows_of, table
from guard.store.rows import ActRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import ActRecord, LedgerAct

_ACTS, _CHAIN = table(ActRecord), table(LedgerAct)
_ADD = insert(_ACTS).returning(_ACTS.c.seq)


def add(
    s: Session,
    *,
    act: Act,
    principal: str,
    role: str,
    authenticated: bool,
    token_id: str,
    subject: str,
    detail: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> ActRow:
    """Record an act, in the transaction that does it."""
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "act": act,
        "principal": principal,
        "role": role,
        "authenticated": authenticated,
        "token_id": token_id,
        "subject": subject,
        "detail": detail,
        "facts": dict(facts),
        "at": now,
    }
    return ActRow(**values, seq=int(s.execute(_ADD, values).scalar_one()))


def list_recent(s: Session, limit: int = 50) -> list[ActRow]:
    """The newest acts first."""
    return many(s, ActRow, rows_of(ActRecord).order_by(_ACTS.c.seq.desc()).limit(limit))


def about(s: Session, subjects: Collection[str], *kinds: Act) -> list[ActRow]:
    """The acts about any of these subjects, the oldest first; all kinds where none is named."""
    which = rows_of(ActRecord).where(_ACTS.c.subject.in_(subjects))
    which = which.where(_ACTS.c.act.in_(kinds)) if kinds else which
    return many(s, ActRow, which.order_by(_ACTS.c.seq))


def unanswered(s: Session, limit: int, scope: Scope = EVERYTHING) -> list[ActRow]:
    """The newest waivers asked for that nobody has approved or revoked."""
    answer = table(ActRecord).alias()
    answers = (Act.APPROVE_WAIVER, Act.REVOKE_WAIVER)
    answered = select(answer.c.id).where(answer.c.subject == _ACTS.c.id, answer.c.act.in_(answers))
    seen = scope.artifacts(_ACTS.c.subject)
    open_ones = rows_of(ActRecord).where(_ACTS.c.act == Act.WAIVE, ~answered.exists(), *seen)
    return many(s, ActRow, open_ones.order_by(_ACTS.c.seq.desc()).limit(limit))


def of_kind(s: Session, kind: Act, scope: Scope = EVERYTHING) -> list[ActRow]:
    """The acts of one kind, the oldest first; with a scope those about artifacts in it."""
    where = (_ACTS.c.act == kind, *scope.artifacts(_ACTS.c.subject))
    return many(s, ActRow, rows_of(ActRecord).where(*where).order_by(_ACTS.c.seq))


def unsealed(s: Session) -> list[ActRow]:
    """The acts that no entry of the ledger's chain names, the oldest first."""
    sealed = select(_CHAIN.c.id).where(_CHAIN.c.id == _ACTS.c.id, _CHAIN.c.kind == DONE)
    return many(s, ActRow, rows_of(ActRecord).where(~sealed.exists()).order_by(_ACTS.c.seq))


def seals(s: Session, ids: Collection[str] | None = None) -> dict[str, str]:
    """The digest that the chain holds of each act, by the act's id; of all acts without `ids`."""
    which = select(_CHAIN.c.id, _CHAIN.c.subject).where(_CHAIN.c.kind == DONE)
    which = which if ids is None else which.where(_CHAIN.c.id.in_(ids))
    return {row.id: row.subject for row in s.execute(which)}


def walk(s: Session, after: int, limit: int) -> list[ActRow]:
    """The next acts behind number `after`, in order."""
    behind = rows_of(ActRecord).where(_ACTS.c.seq > after).order_by(_ACTS.c.seq)
    return many(s, ActRow, behind.limit(limit))
