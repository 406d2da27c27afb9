"""The ledger's acts, signed and chained as verdicts are.

Revocations, changes of keys, and what principals did (the rows of `guard.store.acts`). Here too is
what was noted of the checkpoints that were written outside.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from guard.core.ledger import DONE, KEY_KINDS, act_hash
from guard.store._chain import Chain
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.rows import CheckpointRow, LedgerActRow
from guard.store.tables import CheckpointNote, LedgerAct

_CHAIN = Chain(LedgerAct, LedgerActRow, act_hash)
_ACTS = _CHAIN.table
_NOTES = table(CheckpointNote)
#: `guard.store._chain.Chain` says what each does.
rows, last, at, count = _CHAIN.rows, _CHAIN.last, _CHAIN.at, _CHAIN.count


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
    return _CHAIN.append(
        s,
        {
            "id": act_id,
            "kind": kind,
            "subject": subject,
            "envelope": dict(envelope),
            "at": at.astimezone(UTC),
        },
    )


def own(s: Session) -> list[LedgerActRow]:
    """The acts about the ledger itself, in order: all but what principals did, which may be many.

    They are read every few seconds.
    """
    return many(
        s, LedgerActRow, rows_of(LedgerAct).where(_ACTS.c.kind != DONE).order_by(_ACTS.c.seq)
    )


def about_keys(s: Session) -> list[LedgerActRow]:
    """The acts that say which keys are trusted, in order; read whenever a signature is checked."""
    which = rows_of(LedgerAct).where(_ACTS.c.kind.in_(KEY_KINDS))
    return many(s, LedgerActRow, which.order_by(_ACTS.c.seq))


def note_checkpoint(s: Session, number: int, digest: str, at: datetime) -> None:
    """Note that a checkpoint was written; once more is harmless."""
    insert_once(s, CheckpointNote, {"number": number, "digest": digest, "at": at})


def last_checkpoint(s: Session) -> CheckpointRow | None:
    """The newest checkpoint that was noted, or None."""
    return first(
        s, CheckpointRow, rows_of(CheckpointNote).order_by(_NOTES.c.number.desc()).limit(1)
    )
