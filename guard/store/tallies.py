"""Counters that outlive the processes which count: one row for each name and labels."""

import json
from collections.abc import Mapping

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from guard.core.tallies import LE, MOST_ROWS, OTHER, Key
from guard.store._read import table
from guard.store.tables import Tally

_TALLIES = table(Tally)
MAX_LABELS = 256  # characters


def add(s: Session, amounts: Mapping[Key, float]) -> None:
    """Add to each counter.

    In the order of their keys, so that two workers never wait for each other in a circle.
    """
    for (name, pairs), amount in sorted(amounts.items()):
        labels = _text(pairs)
        if _raised(s, name, labels, amount):
            continue
        if len(labels) > MAX_LABELS or _rows(s, name) >= MOST_ROWS:
            labels = _text(_other(pairs))
        _insert(s, name, labels, amount)


def every(s: Session) -> dict[Key, float]:
    """All counters; their number is bounded by the families' `MOST_ROWS`."""
    rows = s.execute(select(_TALLIES.c.name, _TALLIES.c.labels, _TALLIES.c.value))
    return {
        (row.name, tuple((str(k), str(v)) for k, v in json.loads(row.labels))): row.value
        for row in rows
    }


def _raised(s: Session, name: str, labels: str, amount: float) -> bool:
    found = s.execute(
        update(_TALLIES)
        .where(_TALLIES.c.name == name, _TALLIES.c.labels == labels)
        .values(value=_TALLIES.c.value + amount)
        .returning(_TALLIES.c.name)
    )
    return found.first() is not None


def _insert(s: Session, name: str, labels: str, amount: float) -> None:
    dialect = sqlite if s.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(_TALLIES).values(name=name, labels=labels, value=amount)
    s.execute(
        statement.on_conflict_do_update(
            index_elements=[_TALLIES.c.name, _TALLIES.c.labels],
            set_={"value": _TALLIES.c.value + statement.excluded.value},
        )
    )


def _rows(s: Session, name: str) -> int:
    where = _TALLIES.c.name == name
    return int(s.execute(select(func.count()).select_from(_TALLIES).where(where)).scalar_one())


def _other(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((label, value if label == LE else OTHER) for label, value in pairs)


def _text(pairs: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(pairs, separators=(",", ":"))
