"""Which verdict and which keys count, by rows alone: invariants 14 and 15."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.core.errors import GuardError
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.store.rows import LedgerRow


def when(text: str) -> datetime:
    """A time as SQLite keeps it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ledger_row(row: dict[str, Any]) -> LedgerRow:
    values = {key: row[key] for key in LedgerRow.__dataclass_fields__}
    values |= {
        "verdict": Verdict(values["verdict"]),
        "envelope": json.loads(values["envelope"]),
        "issued_at": when(values["issued_at"]),
        "expires_at": when(values["expires_at"]),
    }
    return LedgerRow(**values)


def counted(ledger: Sequence[LedgerRow], digest: str) -> LedgerRow:
    """The newest verdict on an artifact that decided; the newest of all where none did."""
    about = [row for row in ledger if row.artifact_digest == digest]
    return ([row for row in about if row.verdict is not Verdict.INCONCLUSIVE] or about)[-1]


def distrusted(db: sqlite3.Connection) -> set[str]:
    """The keys about which the last act is one that distrusts them."""
    acts = db.execute(
        "SELECT subject, kind FROM ledger_acts WHERE kind IN ('trust', 'distrust') ORDER BY seq"
    )
    return {key for key, kind in dict(acts.fetchall()).items() if kind == "distrust"}


def signed(row: LedgerRow, trusted: TrustedKeys) -> bool:
    """Whether one of these keys signed the verdict."""
    try:
        dsse.verify(row.envelope, trusted)
    except GuardError:
        return False
    return True


def taken_down(
    db: sqlite3.Connection,
    before: set[str],
    ledger: Sequence[LedgerRow],
    trusted: TrustedKeys,
    *,
    now: datetime,
    since: Mapping[str, int],
    born: int,
) -> Iterator[tuple[int, str]]:
    """14: of the publications that were active before, those that ended without a reason.

    `born` is the step in which the oldest worker that ran began: what is newer it need not know.
    """
    for row_id, name, digest, reason in db.execute(
        "SELECT id, name, digest, reason FROM publications WHERE state != 'active'"
    ):
        if row_id not in before or reason.startswith("replaced by version"):
            continue
        row = counted(ledger, digest)
        holds = row.verdict in SERVABLE_VERDICTS and now < row.expires_at and signed(row, trusted)
        if holds and since[row.id] < born and f"revoked {digest}" not in since:
            yield 14, f"{name} ({digest[:8]}) was taken out of service, though cleared: {reason}"


def keys(db: sqlite3.Connection, *groups: TrustedKeys) -> Iterator[tuple[int, str]]:
    """15: the keys in any of the groups that an act distrusts."""
    lost = distrusted(db)
    for group in groups:
        for key_id in sorted(lost & group.keys.keys()):
            yield 15, f"key {key_id[:8]} counts, though an act distrusts it"
