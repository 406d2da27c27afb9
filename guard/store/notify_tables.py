"""The tables of notifications: destinations, events, deliveries and the log of their tries."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from guard.core.hooks import DeliveryState, HookKind
from guard.store._table import ID, Base, only
from guard.store.types import EnumText, PlainJson, Utc


class Hook(Base):
    """A destination; its address and secret are in `sealed`, and `shown` is all that is printed."""

    __tablename__ = "hooks"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[HookKind] = mapped_column(EnumText(HookKind))
    shown: Mapped[str] = mapped_column(Text)
    sealed: Mapped[str] = mapped_column(Text)
    types: Mapped[list[str]] = mapped_column(PlainJson)
    prefixes: Mapped[list[str]] = mapped_column(PlainJson)
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Utc)
    removed_at: Mapped[datetime | None] = mapped_column(Utc)
    # After a failed try the whole destination rests, so that one that is down is asked seldom.
    failures: Mapped[int]
    resting_until: Mapped[datetime | None] = mapped_column(Utc)


class HookEvent(Base):
    """Something that happened, committed with the rows that it is about."""

    __tablename__ = "hook_events"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    type: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    at: Mapped[datetime] = mapped_column(Utc, index=True)
    # Once each destination that wants it has a delivery.
    fanned_out_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (only("ix_hook_events_new", "at", where="fanned_out_at IS NULL"),)


class Delivery(Base):
    """One event to one destination; its id is the message id that a receiver sees at every try."""

    __tablename__ = "deliveries"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(ID, unique=True)
    event_id: Mapped[str] = mapped_column(ForeignKey("hook_events.id"))
    hook_id: Mapped[str] = mapped_column(ForeignKey("hooks.id"))
    state: Mapped[DeliveryState] = mapped_column(EnumText(DeliveryState))
    attempts: Mapped[int]
    next_at: Mapped[datetime] = mapped_column(Utc)
    created_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (
        UniqueConstraint("event_id", "hook_id"),
        only("ix_deliveries_waiting", "hook_id", "next_at", where="ended_at IS NULL"),
    )


class DeliveryAttempt(Base):
    """One try of a delivery; `status` is None where no answer came."""

    __tablename__ = "delivery_attempts"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id"), index=True)
    at: Mapped[datetime] = mapped_column(Utc)
    status: Mapped[int | None]
    error: Mapped[str] = mapped_column(Text)
    seconds: Mapped[float] = mapped_column(Float)
