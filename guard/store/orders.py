"""Orders: what people asked for in the console, and what became of it."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.roles import Act
from guard.store._read import first, many, rows_of, table
from guard.store.console_tables import OrderRecord
from guard.store.order_rows import OrderRow, OrderState

_ORDERS = table(OrderRecord)


def add(
    s: Session,
    *,
    act: Act,
    wanted: Mapping[str, Any],
    principal: str,
    role: str,
    token_id: str,
    now: datetime,
) -> OrderRow:
    """Record an order that waits to be done."""
    row = OrderRow(
        id=uuid.uuid4().hex,
        act=act,
        wanted=dict(wanted),
        principal=principal,
        role=role,
        token_id=token_id,
        state=OrderState.WAITING,
        answer="",
        result=None,
        at=now,
        ended_at=None,
    )
    s.execute(insert(_ORDERS).values(**vars(row)))
    return row


def get(s: Session, order_id: str, *, by: str | None = None) -> OrderRow:
    """The order with this id; with `by` only one that this principal placed.

    Raises:
        InputError: there is none.
    """
    wanted = rows_of(OrderRecord).where(_ORDERS.c.id == order_id)
    wanted = wanted if by is None else wanted.where(_ORDERS.c.principal == by)
    found = first(s, OrderRow, wanted)
    if found is None:
        raise InputError(f"There is no order {order_id!r}.", code="unknown_order")
    return found


def begin(s: Session, order_id: str) -> bool:
    """Take a waiting order; False where somebody else has."""
    waits = (_ORDERS.c.id == order_id, _ORDERS.c.state == OrderState.WAITING)
    taken = update(_ORDERS).where(*waits).values(state=OrderState.WORKING).returning(_ORDERS.c.id)
    return s.execute(taken).first() is not None


def end(
    s: Session,
    order_id: str,
    state: OrderState,
    answer: str,
    result: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Record what became of an order."""
    values = {"state": state, "answer": answer, "result": result, "ended_at": now}
    s.execute(update(_ORDERS).where(_ORDERS.c.id == order_id).values(**values))


def waiting(s: Session, before: datetime, limit: int = 100) -> list[OrderRow]:
    """Orders from before a time that nobody has begun, the oldest first."""
    where = (_ORDERS.c.state == OrderState.WAITING, _ORDERS.c.at < before)
    return many(s, OrderRow, rows_of(OrderRecord).where(*where).order_by(_ORDERS.c.at).limit(limit))


def of_principal(s: Session, principal: str, limit: int) -> list[OrderRow]:
    """The newest orders of a person."""
    own = rows_of(OrderRecord).where(_ORDERS.c.principal == principal)
    return many(s, OrderRow, own.order_by(_ORDERS.c.at.desc(), _ORDERS.c.id).limit(limit))
