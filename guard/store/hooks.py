"""Destinations of notifications."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import HookKind
from guard.store._read import many, only, rows_of, table
from guard.store.notify_rows import HookRow
from guard.store.notify_tables import Hook

_HOOKS = table(Hook)


def add(
    s: Session,
    *,
    hook_id: str,
    kind: HookKind,
    shown: str,
    sealed: str,
    types: Sequence[str],
    prefixes: Sequence[str],
    by: str,
    now: datetime,
) -> HookRow:
    """Record a destination, whose address and secret are in `sealed`."""
    row = HookRow(
        id=hook_id,
        kind=kind,
        shown=shown,
        sealed=sealed,
        types=list(types),
        prefixes=list(prefixes),
        created_by=by,
        created_at=now,
        removed_at=None,
        failures=0,
        resting_until=None,
    )
    s.execute(insert(_HOOKS).values(**vars(row)))
    return row


def get(s: Session, id_or_prefix: str) -> HookRow:
    """One destination, by its id or an unambiguous start of it, removed or not.

    Raises:
        InputError: there is not exactly one.
    """
    otherwise = InputError(
        f"There is not exactly one destination {id_or_prefix!r}; `guard hook list` lists them.",
        code="unknown_hook",
    )
    return only(s, HookRow, Hook, id_or_prefix, otherwise)


def list_all(s: Session) -> list[HookRow]:
    """The destinations in force, the oldest first."""
    return many(
        s,
        HookRow,
        rows_of(Hook)
        .where(_HOOKS.c.removed_at.is_(None))
        .order_by(_HOOKS.c.created_at, _HOOKS.c.id),
    )


def count(s: Session) -> int:
    """How many are in force."""
    counted = select(func.count()).select_from(_HOOKS).where(_HOOKS.c.removed_at.is_(None))
    return int(s.execute(counted).scalar_one())


def remove(s: Session, hook_id: str, now: datetime) -> None:
    """Take a destination out of force for good, and forget its address and secret."""
    s.execute(update(_HOOKS).where(_HOOKS.c.id == hook_id).values(removed_at=now, sealed=""))


def answered(s: Session, hook_id: str) -> None:
    """Record that it took a delivery."""
    s.execute(update(_HOOKS).where(_HOOKS.c.id == hook_id).values(failures=0, resting_until=None))


def failed(s: Session, hook_id: str, until: datetime) -> None:
    """Record that it did not take a delivery, and let it rest."""
    s.execute(
        update(_HOOKS)
        .where(_HOOKS.c.id == hook_id)
        .values(failures=_HOOKS.c.failures + 1, resting_until=until)
    )
