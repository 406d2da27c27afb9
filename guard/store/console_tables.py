"""The tables of the review console: what people ask for there, and the images that it shows."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from guard.core.roles import Act
from guard.store._table import ID, Base, only
from guard.store.order_rows import OrderState
from guard.store.types import EnumText, PlainJson, Utc


class OrderRecord(Base):
    """An act that a person asked for in the console, for the process with the key to do."""

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    act: Mapped[Act] = mapped_column(EnumText(Act))
    wanted: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    principal: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(16))
    token_id: Mapped[str] = mapped_column(ID)
    state: Mapped[OrderState] = mapped_column(EnumText(OrderState))
    answer: Mapped[str] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(PlainJson)
    at: Mapped[datetime] = mapped_column(Utc, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (only("ix_orders_waiting", "at", where="state = 'waiting'"),)


class ExhibitRecord(Base):
    """The images of a verdict's report, made once where the blobs can be read."""

    __tablename__ = "exhibits"
    verdict_id: Mapped[str] = mapped_column(ForeignKey("verdicts.id"), primary_key=True)
    shown: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    at: Mapped[datetime] = mapped_column(Utc)


class Heartbeat(Base):
    """When something that is done again and again was last done."""

    __tablename__ = "heartbeats"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(Utc)
