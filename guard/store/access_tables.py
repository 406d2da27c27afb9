"""The tables of who comes in by a browser."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from guard.store._table import DIGEST, ID, Base
from guard.store.types import PlainJson, Utc


class BrowserSession(Base):
    """A browser that is signed in, as the SHA-256 of its cookie's secret."""

    __tablename__ = "browser_sessions"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    hash: Mapped[str] = mapped_column(DIGEST)
    principal: Mapped[str] = mapped_column(String(64), index=True)
    token_ids: Mapped[list[str]] = mapped_column(PlainJson)
    seal: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Utc)
    expires_at: Mapped[datetime] = mapped_column(Utc, index=True)
    last_used_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)
