"""Named training sets: where each lies, and what was read there when it was added."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from guard.core.plain import from_plain, to_plain
from guard.core.trainset import TrainingSetFacts
from guard.store._read import rows_of, table
from guard.store.rows import TrainingSetRow
from guard.store.training_tables import TrainingSetRecord

_SETS = table(TrainingSetRecord)


def put(s: Session, row: TrainingSetRow) -> None:
    """Record a training set, in place of an earlier one of its name."""
    dialect = sqlite if s.get_bind().dialect.name == "sqlite" else postgresql
    values = {
        "name": row.name,
        "uri": row.uri,
        "class_names": list(row.class_names),
        "facts": to_plain(row.facts),
        "added_at": row.added_at,
    }
    statement = dialect.insert(_SETS).values(**values)
    s.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def get_by_name(s: Session, name: str) -> TrainingSetRow | None:
    """The training set of this name, or None."""
    found = s.execute(rows_of(TrainingSetRecord).where(_SETS.c.name == name)).first()
    return None if found is None else _row(found._mapping)


def list_all(s: Session) -> list[TrainingSetRow]:
    """Every training set, ordered by name."""
    statement = rows_of(TrainingSetRecord).order_by(_SETS.c.name)
    return [_row(found._mapping) for found in s.execute(statement)]


def _row(found: Mapping[Any, Any]) -> TrainingSetRow:
    return TrainingSetRow(
        name=found["name"],
        uri=found["uri"],
        class_names=tuple(found["class_names"]),
        facts=from_plain(TrainingSetFacts, found["facts"]),
        added_at=found["added_at"],
    )
