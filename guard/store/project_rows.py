"""Rows of projects as they come out of the store."""

from dataclasses import dataclass
from datetime import datetime

from guard.core.projects import MemberKind, Priority
from guard.core.roles import Role


@dataclass(frozen=True, kw_only=True)
class ProjectRow:
    """A prefix of a bucket with its limits; None stands for no limit, clean set or policy."""

    name: str
    bucket: str
    prefix: str
    cleanset: str | None
    policy: str | None = None
    scans_a_day: int | None
    bytes_a_day: int | None
    open_scans: int | None
    priority: Priority
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class MemberRow:
    """A member of a project until `removed_at`."""

    id: str
    project: str
    kind: MemberKind
    member: str
    role: Role
    created_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a project used in the last 24 hours, and how many of its scans are open.

    `oldest` is when the first of those uploads was taken in.
    """

    scans: int
    bytes: int
    open: int
    oldest: datetime | None
