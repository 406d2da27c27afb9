"""Projects: prefixes with members, limits, clean set and policy, as `guard project` has them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.problems import USUAL, refusals
from guard.core.projects import MemberKind, Priority
from guard.core.roles import Role
from guard.flow import projects, readers
from guard.flow.principals import Principal

router = APIRouter(
    prefix="/projects",
    tags=["projects"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)
Caller = Annotated[Principal, Depends(require_token)]
Limit = Annotated[int, Field(ge=1, lt=2**62)]


class Member(BaseModel):
    """A principal, or a group of the identity provider, in a role of a project."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: MemberKind
    member: str = Field(min_length=1, max_length=projects.MAX_MEMBER)
    role: Role


class ProjectChange(BaseModel):
    """What is to change; what is left out stays, null takes a limit, set or policy away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cleanset: str | None = Field(default=None, max_length=200)
    policy: str | None = Field(default=None, max_length=63)
    priority: Priority = Priority.NORMAL
    scans_a_day: Limit | None = None
    bytes_a_day: Limit | None = None
    open_scans: Limit | None = None


class ProjectRequest(ProjectChange):
    """A new project: its name and BUCKET/PREFIX, beside what `ProjectChange` has."""

    name: str = Field(min_length=1, max_length=63)
    prefix: str = Field(min_length=1, max_length=1024)


class ProjectAnswer(BaseModel):
    """A project, its members, and what it used: of 24 hours, and the scans open now."""

    name: str
    bucket: str
    prefix: str
    cleanset: str | None
    policy: str | None
    priority: Priority
    scans_a_day: int | None
    bytes_a_day: int | None
    open_scans: int | None
    created_at: datetime
    members: list[Member]
    used: dict[Literal["scans", "bytes", "open"], int]

    @classmethod
    def of(cls, found: projects.ProjectView) -> "ProjectAnswer":
        """The answer for a project as the use case has it."""
        members = [Member(kind=one.kind, member=one.member, role=one.role) for one in found.members]
        used = found.usage
        return cls(
            **vars(found.project),
            members=members,
            used={"scans": used.scans, "bytes": used.bytes, "open": used.open},
        )


class Projects(BaseModel):
    """A list of projects."""

    projects: list[ProjectAnswer]


@router.get("")
def list_projects(request: Request) -> Projects:
    """List the projects that whoever asks may read, by name."""
    found = projects.every(guard_of(request), scope_of(request))
    return Projects(projects=[ProjectAnswer.of(one) for one in found])


@router.get("/{name}", responses=refusals(404))
def show_project(name: str, request: Request) -> ProjectAnswer:
    """One project with its members and what it uses."""
    readers.check_project(scope_of(request), name)
    return ProjectAnswer.of(projects.view(guard_of(request), name))


@router.post("", status_code=201, responses=refusals(400, 403, 409))
def make_project(
    wanted: ProjectRequest, request: Request, response: Response, who: Caller
) -> ProjectAnswer:
    """Make a project of what lies under a prefix, as an operator."""
    guard = guard_of(request)
    more = wanted.model_dump(exclude={"name", "prefix"}, exclude_unset=True)
    made = projects.create(guard, who, wanted.name, wanted.prefix, more)
    response.headers["Location"] = f"/projects/{made.name}"
    return ProjectAnswer.of(projects.view(guard, made.name))


@router.post("/{name}", responses=refusals(400, 403, 404))
def change_project(
    name: str, wanted: ProjectChange, request: Request, who: Caller
) -> ProjectAnswer:
    """Change a project's clean set, policy, priority or limits, as an operator."""
    guard = guard_of(request)
    projects.change(guard, who, name, wanted.model_dump(exclude_unset=True))
    return ProjectAnswer.of(projects.view(guard, name))


@router.post("/{name}/members", responses=refusals(400, 403, 404))
def add_member(name: str, wanted: Member, request: Request, who: Caller) -> ProjectAnswer:
    """Make a principal or a group a member, as an operator."""
    guard = guard_of(request)
    projects.add_member(guard, who, name, wanted.kind, wanted.member, wanted.role)
    return ProjectAnswer.of(projects.view(guard, name))


@router.post("/{name}/members/remove", responses=refusals(400, 403, 404))
def remove_member(name: str, wanted: Member, request: Request, who: Caller) -> ProjectAnswer:
    """End a membership, as an operator; earlier uploads stay the member's own."""
    guard = guard_of(request)
    projects.remove_member(guard, who, name, wanted.kind, wanted.member, wanted.role)
    return ProjectAnswer.of(projects.view(guard, name))
