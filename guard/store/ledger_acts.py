"""The ledger's acts: revocations and changes of keys, signed and chained as verdicts are.

`guard.core.ledger` defines the hash, and `guard.attest.acts` checks it. Here too is what was noted
of the checkpoints that were written outside.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from guard.core.ledger import GENESIS, act_hash
from guard.store import ledger
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import CheckpointRow, LedgerActRow
from guard.store.tables import CheckpointNote, LedgerAct

_ACTS = table(LedgerAct)
_NOTES = table(CheckpointNote)


def append(
    s: Session,
    *,
    act_id: str,
    kind: str,
    subject: str,
    envelope: Mapping[str, Any],
    at: datetime,
) -> LedgerActRow:
    """Add an act at the end of its chain, inside `transaction`.

    If `act_id` is in the chain already, nothing is added and that row is returned.
    """
    ledger.lock(s)
    there = first(s, LedgerActRow, rows_of(LedgerAct).where(_ACTS.c.id == act_id))
    if there is not None:
        return there
    end = last(s)
    previous = GENESIS if end is None else end.hash
    values: dict[str, Any] = {
        "seq": 1 if end is None else end.seq + 1,
        "id": act_id,
        "kind": kind,
        "subject": subject,
        "envelope": dict(envelope),
        "at": at.astimezone(UTC),
    }
    row = LedgerActRow(**values, previous=previous, hash=act_hash(previous, values))
    s.execute(insert(_ACTS).values(**values, previous=previous, hash=row.hash))
    return row


def last(s: Session) -> LedgerActRow | None:
    """The last act, or None."""
    return first(s, LedgerActRow, rows_of(LedgerAct).order_by(_ACTS.c.seq.desc()).limit(1))


def rows(s: Session) -> list[LedgerActRow]:
    """Every act, in order."""
    return many(s, LedgerActRow, rows_of(LedgerAct).order_by(_ACTS.c.seq))


def note_checkpoint(s: Session, number: int, digest: str, at: datetime) -> None:
    """Note that a checkpoint was written; once more is harmless."""
    insert_once(s, CheckpointNote, {"number": number, "digest": digest, "at": at})


def last_checkpoint(s: Session) -> CheckpointRow | None:
    """The newest checkpoint that was noted, or None."""
    return first(
        s, CheckpointRow, rows_of(CheckpointNote).order_by(_NOTES.c.number.desc()).limit(1)
    )
