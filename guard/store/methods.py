"""The methods that this installation knows, their versions, and whether they decide."""

from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, insert, update
from sqlalchemy.orm import Session

from guard.core.errors import UnknownMethod
from guard.store._read import first, many, rows_of, table
from guard.store.rows import MethodRow, MethodState
from guard.store.tables import Method

_METHODS = table(Method)


def sync(
    s: Session, known: Iterable[tuple[str, str, int]], *, enabled: Collection[str] = ()
) -> list[MethodRow]:
    """Bring the table in line with the shelves and return it.

    A method that is new, or whose version rose, starts in `evaluation`, or as `enabled` if its name
    is in `enabled`. A retired method stays retired, and a method that left the shelves is retired.

    Args:
        known: (kind, name, version) of every plug-in.
        enabled: names that the packaged policy lists.
    """
    before = {(row.kind, row.name): row for row in list_all(s)}
    left = dict(before)
    for kind, name, version in known:
        fresh = MethodState.ENABLED if name in enabled else MethodState.EVALUATION
        old = before.get((kind, name))
        left.pop((kind, name), None)
        if old is None:
            s.execute(insert(_METHODS).values(kind=kind, name=name, version=version, state=fresh))
        elif old.version != version:
            state = MethodState.RETIRED if old.state == MethodState.RETIRED else fresh
            s.execute(update(_METHODS).where(*_is(kind, name)).values(version=version, state=state))
    for kind, name in left:
        s.execute(update(_METHODS).where(*_is(kind, name)).values(state=MethodState.RETIRED))
    return list_all(s)


def set_state(s: Session, kind: str, name: str, state: MethodState) -> MethodRow:
    """Enable, retire or evaluate a method.

    Raises:
        UnknownMethod: there is no such method.
    """
    s.execute(update(_METHODS).where(*_is(kind, name)).values(state=state))
    row = first(s, MethodRow, rows_of(Method).where(*_is(kind, name)))
    if row is None:
        raise UnknownMethod(f"There is no {kind} {name!r}; `guard methods list` shows all methods.")
    return row


def list_all(s: Session) -> list[MethodRow]:
    """Every method, ordered by kind and name."""
    return many(s, MethodRow, rows_of(Method).order_by(_METHODS.c.kind, _METHODS.c.name))


def enabled(s: Session, kind: str) -> list[MethodRow]:
    """The enabled methods of a kind, which decide."""
    return [row for row in list_all(s) if row.kind == kind and row.state == MethodState.ENABLED]


def _is(kind: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return (_METHODS.c.kind == kind, _METHODS.c.name == name)
