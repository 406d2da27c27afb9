"""The tables of training sets: those with a name, and the jobs on them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from guard.core.training_jobs import JobKind, JobState
from guard.store._table import DIGEST, ID, Base, only
from guard.store.types import EnumText, PlainJson, Utc


class TrainingSetRecord(Base):
    """A named training set: where it lies, and what was read there when it was added."""

    __tablename__ = "training_sets"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    uri: Mapped[str] = mapped_column(Text)
    class_names: Mapped[list[str]] = mapped_column(PlainJson)
    facts: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    added_at: Mapped[datetime] = mapped_column(Utc)


class TrainingJob(Base):
    """A sift or a retraining that somebody asked for; at most one open job for each request."""

    __tablename__ = "training_jobs"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[JobKind] = mapped_column(EnumText(JobKind))
    request: Mapped[str] = mapped_column(DIGEST, index=True)
    wanted: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    scan_id: Mapped[str] = mapped_column(ForeignKey("scans.id"))
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    state: Mapped[JobState] = mapped_column(EnumText(JobState), index=True)
    principal: Mapped[str] = mapped_column(Text)
    budget_seconds: Mapped[float] = mapped_column(Float)
    spent_seconds: Mapped[float] = mapped_column(Float)
    done: Mapped[float] = mapped_column(Float)
    note: Mapped[str] = mapped_column(Text)
    seconds_left: Mapped[float | None] = mapped_column(Float)
    cancelled_by: Mapped[str | None] = mapped_column(Text)
    files: Mapped[dict[str, str]] = mapped_column(PlainJson)
    result: Mapped[dict[str, Any] | None] = mapped_column(PlainJson)
    child_digest: Mapped[str | None] = mapped_column(DIGEST)
    child_scan_id: Mapped[str | None] = mapped_column(ForeignKey("scans.id"))
    error: Mapped[str | None] = mapped_column(Text)
    code: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int]
    lease_token: Mapped[int]
    lease_until: Mapped[datetime | None] = mapped_column(Utc)
    created_at: Mapped[datetime] = mapped_column(Utc, index=True)
    updated_at: Mapped[datetime] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (
        only(
            "uq_training_jobs_open",
            "request",
            where="ended_at IS NULL",
            unique=True,
        ),
    )
