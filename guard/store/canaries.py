"""Canaries: the results of a worker's detectors on models known to be clean or backdoored.

Rows are only added, and the latest one counts.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from guard.store._read import first, many, rows_of, table
from guard.store.rows import CanaryRow
from guard.store.tables import Canary

_CANARIES = table(Canary)


def add(
    s: Session,
    *,
    worker: str,
    methods: str,
    passed: bool,
    trials: Sequence[Mapping[str, Any]],
    now: datetime,
) -> CanaryRow:
    """Record one run; see `CanaryRow` for the fields."""
    row = CanaryRow(
        id=uuid.uuid4().hex,
        worker=worker,
        methods=methods,
        passed=passed,
        trials=[dict(trial) for trial in trials],
        at=now,
    )
    s.execute(insert(_CANARIES).values(vars(row)))
    return row


def latest(s: Session, worker: str, methods: str) -> CanaryRow | None:
    """The newest run of these methods on this worker."""
    mine = rows_of(Canary).where(_CANARIES.c.worker == worker, _CANARIES.c.methods == methods)
    return first(s, CanaryRow, mine.order_by(_CANARIES.c.at.desc(), _CANARIES.c.id).limit(1))


def list_recent(s: Session, limit: int = 50) -> list[CanaryRow]:
    """The newest runs first, of all workers."""
    return many(
        s, CanaryRow, rows_of(Canary).order_by(_CANARIES.c.at.desc(), _CANARIES.c.id).limit(limit)
    )
