"""Make projects, change their limits and members, and see what they use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard.core.errors import InputError
from guard.core.projects import MEMBER_ROLES, MemberKind, Priority
from guard.core.roles import Act, Role
from guard.flow import _quotas
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Forbidden, Principal, permit
from guard.flow.tokens import place_of
from guard.store import cleansets, principals, projects
from guard.store.project_rows import MemberRow, ProjectRow, Usage
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.flow.context import Guard
    from guard.store.rows import ScanRow

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LIMITS = ("scans_a_day", "bytes_a_day", "open_scans")
MAX_MEMBER = 255


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    """A project with its members and what it uses now."""

    project: ProjectRow
    members: tuple[MemberRow, ...]
    usage: Usage


def create(
    guard: "Guard", who: Principal, name: str, prefix: str, wanted: Mapping[str, Any]
) -> ProjectRow:
    """Make a project of what lies under a prefix.

    Args:
        prefix: BUCKET/PREFIX; of two that cover a key, the longer one counts.
        wanted: `cleanset`, `policy`, `priority` and `LIMITS`, where they are not the defaults.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: the name, the prefix or something wanted cannot be, or is another project's.
        PolicyError: the policy cannot be used.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r:.100} cannot name a project; use a-z, 0-9 and -.", code="bad_project"
        )
    bucket, folder = place_of(guard, prefix)
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.CREATE_PROJECT)
        _check(guard, session, wanted)
        row = ProjectRow(
            name=name,
            bucket=bucket,
            prefix=folder,
            created_at=guard.now(),
            **{
                "cleanset": None,
                "policy": None,
                "priority": Priority.NORMAL,
                **dict.fromkeys(LIMITS),
                **wanted,
            },
        )
        if not projects.add(session, row):
            raise InputError(
                f"There is a project {name}, or one of {bucket}/{folder}.", code="project_exists"
            )
        facts = _facts(guard, wanted)
        note(guard, session, who, Act.CREATE_PROJECT, name, f"{bucket}/{folder}", facts)
    settle(guard)
    return row


def change(guard: "Guard", who: Principal, name: str, wanted: Mapping[str, Any]) -> ProjectRow:
    """Change a project's clean set, policy, priority or limits; what is not named stays.

    With another policy, what is served of the project is scanned again, as after any change of one.

    Args:
        wanted: as in `create`; None takes a limit, the clean set or the policy away.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such project, nothing is wanted, or it cannot be.
        PolicyError: the policy cannot be used.
    """
    if not wanted:
        raise InputError("Name something to change.", code="bad_project")
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.CHANGE_PROJECT)
        projects.get(session, name)
        _check(guard, session, wanted)
        projects.change(session, name, wanted)
        note(guard, session, who, Act.CHANGE_PROJECT, name, "", _facts(guard, wanted))
        row = projects.get(session, name)
    settle(guard)
    return row


def add_member(
    guard: "Guard", who: Principal, name: str, kind: MemberKind, member: str, role: Role
) -> None:
    """Make a principal, or a group of the identity provider, a member of a project.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such project or principal, or nobody is a member in this role.
    """
    if role not in MEMBER_ROLES:
        raise InputError(
            f"Members are {' or '.join(sorted(MEMBER_ROLES))}; other roles are not a project's.",
            code="bad_member",
        )
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.ADD_MEMBER)
        projects.get(session, name)
        known = kind is MemberKind.GROUP or principals.is_known(session, member)
        if not known or not 0 < len(member) <= MAX_MEMBER or not member.isprintable():
            raise InputError(f"There is no {kind} {member!r:.100}.", code="bad_member")
        projects.add_member(session, name, kind, member, role, guard.now())
        note(guard, session, who, Act.ADD_MEMBER, name, f"{kind} {member} as {role}")
    settle(guard)


def remove_member(
    guard: "Guard", who: Principal, name: str, kind: MemberKind, member: str, role: Role
) -> None:
    """End a membership; what a member uploaded meanwhile stays theirs.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such project or member.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.REMOVE_MEMBER)
        projects.get(session, name)
        if not projects.remove_member(session, name, kind, member, role, guard.now()):
            raise InputError(f"{member!r:.100} is no {role} of {name}.", code="bad_member")
        note(guard, session, who, Act.REMOVE_MEMBER, name, f"{kind} {member} as {role}")
    settle(guard)


def view(guard: "Guard", name: str) -> ProjectView:
    """A project with its members and its use.

    Raises:
        InputError: there is none.
    """
    with reading(guard.engine) as session:
        return _view(guard, session, projects.get(session, name))


def every(guard: "Guard", scope: Scope = EVERYTHING) -> list[ProjectView]:
    """All projects in a scope, by name."""
    with reading(guard.engine) as session:
        return [
            _view(guard, session, row)
            for row in projects.list_all(session)
            if scope.reads_project(row.name)
        ]


def check_reviewer(session: "Session", who: Principal, scan: "ScanRow") -> None:
    """Check that somebody may review what a project uploaded; with no reviewers of its own, all.

    Raises:
        Forbidden: the project has reviewers, and this is none of them.
    """
    project = projects.of_key(session, scan.bucket, scan.key)
    if project is None or not projects.has_reviewers(session, project.name):
        return
    if who.name not in projects.people(session, project.name, Role.REVIEWER):
        raise Forbidden(f"{who.name} is no reviewer of project {project.name}; ask an operator.")


def _view(guard: "Guard", session: "Session", row: ProjectRow) -> ProjectView:
    return ProjectView(
        project=row,
        members=tuple(projects.members(session, row.name)),
        usage=projects.usage(session, row.name, guard.now() - _quotas.DAY),
    )


def _check(guard: "Guard", session: "Session", wanted: Mapping[str, Any]) -> None:
    if (policy := wanted.get("policy")) is not None:
        guard.named_policy(policy)
    for limit in LIMITS:
        if (value := wanted.get(limit)) is not None and not 1 <= value < 2**62:
            raise InputError(f"{limit} must be at least 1.", code="bad_project")
    name = wanted.get("cleanset")
    if name is not None and name not in {one.name for one in cleansets.list_all(session)}:
        raise InputError(
            f"There is no clean set called {name!r:.100}; add it with `guard cleanset add`.",
            code="cleanset_unknown",
        )


def _facts(guard: "Guard", wanted: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: "none" if value is None else value for name, value in sorted(wanted.items())}
    if (policy := wanted.get("policy")) is not None:
        facts["policy_digest"] = guard.named_policy(policy).digest
    return facts
