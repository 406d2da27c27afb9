"""Rows that tests of the store need before they can begin."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from guard.core.states import Verdict
from guard.store import artifacts, ledger, scans
from guard.store.rows import ArtifactKind, LedgerRow, ScanRow

NOW = datetime(2026, 11, 21, 8, 30, 15, 123456, tzinfo=UTC)
_NUMBERS = itertools.count()


def a_digest() -> str:
    return f"{next(_NUMBERS):064x}"


def an_artifact(
    s: Session, kind: ArtifactKind = ArtifactKind.CANONICAL, parent: str | None = None
) -> str:
    return artifacts.put(
        s, digest=a_digest(), size=5 << 30, kind=kind, now=NOW, parent_digest=parent
    ).digest


def a_scan(s: Session, **fields: Any) -> ScanRow:
    values: dict[str, Any] = {
        "scan_id": uuid.uuid4().hex,
        "bucket": "intake",
        "key": f"m{next(_NUMBERS)}.safetensors",
        "version_id": "v1",
        "name": "m",
        "now": NOW,
    }
    return scans.insert(s, **{**values, **fields})


def a_verdict(
    s: Session, scan: ScanRow, digest: str, verdict: Verdict = Verdict.CLEARED, **fields: Any
) -> LedgerRow:
    values: dict[str, Any] = {
        "verdict_id": uuid.uuid4().hex,
        "artifact": digest,
        "scan_id": scan.id,
        "verdict": verdict,
        "envelope": {"payload": "é", "n": 0.1},
        "issued_at": NOW,
        "expires_at": NOW + timedelta(days=30),
        "policy_digest": "c" * 64,
    }
    return ledger.append(s, **{**values, **fields})
