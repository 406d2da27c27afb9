"""The tables of projects."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from guard.core.projects import MemberKind, Priority
from guard.core.roles import Role
from guard.store._table import ID, Base, only
from guard.store.types import EnumText, Utc


class Project(Base):
    """A prefix of a bucket with its clean set, its limits and its turn."""

    __tablename__ = "projects"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    cleanset: Mapped[str | None] = mapped_column(Text)
    policy: Mapped[str | None] = mapped_column(Text)
    scans_a_day: Mapped[int | None]
    bytes_a_day: Mapped[int | None] = mapped_column(BigInteger)
    open_scans: Mapped[int | None]
    priority: Mapped[Priority] = mapped_column(EnumText(Priority))
    created_at: Mapped[datetime] = mapped_column(Utc)
    __table_args__ = (UniqueConstraint("bucket", "prefix"),)


class ProjectMember(Base):
    """A member of a project until `removed_at`; the row stays."""

    __tablename__ = "project_members"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("projects.name"), index=True)
    kind: Mapped[MemberKind] = mapped_column(EnumText(MemberKind))
    member: Mapped[str] = mapped_column(Text)
    role: Mapped[Role] = mapped_column(EnumText(Role))
    created_at: Mapped[datetime] = mapped_column(Utc)
    removed_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (
        only(
            "uq_project_members_in",
            "project",
            "kind",
            "member",
            "role",
            where="removed_at IS NULL",
            unique=True,
        ),
    )


class ProjectUpload(Base):
    """Of which project an upload was when it was taken in, and how large."""

    __tablename__ = "project_uploads"
    scan_id: Mapped[str] = mapped_column(ForeignKey("scans.id"), primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("projects.name"))
    size: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(Utc)
    __table_args__ = (Index("ix_project_uploads_project", "project", "at"),)
