"""Projects: their prefixes, members and limits, and what of these is used."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Text, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.projects import MemberKind
from guard.core.roles import Role
from guard.core.states import ScanState
from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.access_tables import KnownIdentity
from guard.store.project_rows import MemberRow, ProjectRow, Usage
from guard.store.project_tables import Project, ProjectMember, ProjectUpload
from guard.store.tables import Scan

_PROJECTS, _MEMBERS, _UPLOADS = table(Project), table(ProjectMember), table(ProjectUpload)
_SCANS, _IDENTITIES = table(Scan), table(KnownIdentity)
_LENGTH = func.length(_PROJECTS.c.prefix)
_OF_KEY = (
    rows_of(Project)
    .where(
        _PROJECTS.c.bucket == bindparam("bucket_"),
        func.substr(bindparam("key_", type_=Text), 1, _LENGTH) == _PROJECTS.c.prefix,
    )
    .order_by(_LENGTH.desc())
    .limit(1)
)
_OPEN = [state for state in ScanState if state not in {ScanState.DONE, ScanState.FAILED}]


def add(s: Session, row: ProjectRow) -> bool:
    """Record a project; returns whether neither its name nor its prefix is another's."""
    return insert_once(s, Project, vars(row))


def get(s: Session, name: str) -> ProjectRow:
    """The project of this name.

    Raises:
        InputError: there is none.
    """
    found = first(s, ProjectRow, rows_of(Project).where(_PROJECTS.c.name == name))
    if found is None:
        raise unknown(name)
    return found


def unknown(name: str) -> InputError:
    """What is raised where there is no project of a name."""
    return InputError(
        f"There is no project {name!r:.100}; `guard project list` shows them.",
        code="unknown_project",
    )


def list_all(s: Session) -> list[ProjectRow]:
    """Every project, by name."""
    return many(s, ProjectRow, rows_of(Project).order_by(_PROJECTS.c.name))


def of_member(s: Session, principal: str, groups: Iterable[str]) -> frozenset[str]:
    """The names of the projects in which a principal, or one of these groups, is a member."""
    kind, member = _MEMBERS.c.kind, _MEMBERS.c.member
    mine = or_(
        and_(kind == MemberKind.PRINCIPAL, member == principal),
        and_(kind == MemberKind.GROUP, member.in_(list(groups))),
    )
    found = select(_MEMBERS.c.project).where(mine, _MEMBERS.c.removed_at.is_(None)).distinct()
    return frozenset(s.execute(found).scalars())


def change(s: Session, name: str, values: Mapping[str, Any]) -> None:
    """Change a project's clean set, policy, limits or priority."""
    s.execute(update(_PROJECTS).where(_PROJECTS.c.name == name).values(**values))


def with_policy(s: Session) -> list[ProjectRow]:
    """The projects that have a policy of their own, by name."""
    found = rows_of(Project).where(_PROJECTS.c.policy.is_not(None))
    return many(s, ProjectRow, found.order_by(_PROJECTS.c.name))


def of_key(s: Session, bucket: str, key: str) -> ProjectRow | None:
    """The project with the longest prefix of `key`, or None."""
    return first(s, ProjectRow, _OF_KEY, bucket_=bucket, key_=key)


def covering(known: Iterable[ProjectRow], bucket: str, key: str) -> ProjectRow | None:
    """What `of_key` gives, among projects that were read already."""
    fit = [one for one in known if one.bucket == bucket and key.startswith(one.prefix)]
    return max(fit, key=lambda one: len(one.prefix), default=None)


def members(s: Session, project: str) -> list[MemberRow]:
    """The members that were not removed, by role and name."""
    order = (_MEMBERS.c.role, _MEMBERS.c.kind, _MEMBERS.c.member)
    mine = (_MEMBERS.c.project == project, _MEMBERS.c.removed_at.is_(None))
    return many(s, MemberRow, rows_of(ProjectMember).where(*mine).order_by(*order))


def add_member(
    s: Session, project: str, kind: MemberKind, member: str, role: Role, now: datetime
) -> None:
    """Make somebody a member; harmless where they are."""
    values = {"project": project, "kind": kind, "member": member, "role": role}
    insert_once(
        s, ProjectMember, {**values, "id": uuid.uuid4().hex, "created_at": now, "removed_at": None}
    )


def remove_member(
    s: Session, project: str, kind: MemberKind, member: str, role: Role, now: datetime
) -> bool:
    """End a membership; returns whether there was one."""
    same = (
        _MEMBERS.c.project == project,
        _MEMBERS.c.kind == kind,
        _MEMBERS.c.member == member,
        _MEMBERS.c.role == role,
        _MEMBERS.c.removed_at.is_(None),
    )
    ended = update(_MEMBERS).where(*same).values(removed_at=now).returning(_MEMBERS.c.id)
    return s.execute(ended).first() is not None


def people(s: Session, project: str, role: Role) -> frozenset[str]:
    """The principals that are members in a role, also by a group when they last signed on."""
    found = [row for row in members(s, project) if row.role is role]
    named = frozenset(row.member for row in found if row.kind is MemberKind.PRINCIPAL)
    groups = {row.member for row in found if row.kind is MemberKind.GROUP}
    if not groups:
        return named
    rows = s.execute(select(_IDENTITIES.c.principal, _IDENTITIES.c.groups))
    return named | {row.principal for row in rows if not groups.isdisjoint(row.groups)}


def has_reviewers(s: Session, project: str) -> bool:
    """Whether a project has reviewers of its own, be it a group that nobody is in."""
    return any(row.role is Role.REVIEWER for row in members(s, project))


def record_upload(s: Session, project: str, scan_id: str, size: int, now: datetime) -> None:
    """Keep that a scan is of an upload of a project."""
    s.execute(insert(_UPLOADS).values(project=project, scan_id=scan_id, size=size, at=now))


def usage(s: Session, project: str, since: datetime) -> Usage:
    """What a project used since a time, and how many of its scans are open now."""
    columns = (
        func.count().label("scans"),
        func.coalesce(func.sum(_UPLOADS.c.size), 0).label("bytes"),
        func.min(_UPLOADS.c.at).label("oldest"),
    )
    mine = (_UPLOADS.c.project == project, _UPLOADS.c.at > since)
    row = s.execute(select(*columns).where(*mine)).one()
    return Usage(
        scans=row.scans,
        bytes=int(row.bytes),
        open=open_by_project(s, [project]).get(project, 0),
        oldest=row.oldest,
    )


def open_by_project(s: Session, only: Iterable[str] | None = None) -> dict[str | None, int]:
    """How many scans of uploads are open of each project; under None those of no project.

    Args:
        only: the projects that matter; None means all.
    """
    joined = _SCANS.outerjoin(_UPLOADS, _UPLOADS.c.scan_id == _SCANS.c.id)
    where = and_(_SCANS.c.state.in_(_OPEN), _SCANS.c.parent_scan_id.is_(None))
    if only is not None:
        where = and_(where, _UPLOADS.c.project.in_(list(only)))
    counted = (
        select(_UPLOADS.c.project, func.count().label("scans"))
        .select_from(joined)
        .where(where)
        .group_by(_UPLOADS.c.project)
    )
    return {row.project: row.scans for row in s.execute(counted)}
