"""The tables of who comes in by a browser or from an identity provider."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
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
    # SHA-256 of the attempt at the identity provider that opened it, so that none opens two.
    attempt: Mapped[str | None] = mapped_column(DIGEST, unique=True)
    sid: Mapped[str | None] = mapped_column(DIGEST, index=True)
    created_at: Mapped[datetime] = mapped_column(Utc)
    expires_at: Mapped[datetime] = mapped_column(Utc, index=True)
    last_used_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)


class LogoutStatement(Base):
    """A logout token of the identity provider, as the SHA-256 of its issuer and id."""

    __tablename__ = "logout_statements"
    id: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    at: Mapped[datetime] = mapped_column(Utc)


class KnownIdentity(Base):
    """A person of an identity provider, and the principal that they alone are."""

    __tablename__ = "identities"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    issuer: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    principal: Mapped[str] = mapped_column(ForeignKey("principals.name"), unique=True)
    groups: Mapped[list[str]] = mapped_column(PlainJson)
    created_at: Mapped[datetime] = mapped_column(Utc)
    last_used_at: Mapped[datetime] = mapped_column(Utc)
    __table_args__ = (UniqueConstraint("issuer", "subject"),)
