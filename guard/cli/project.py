"""Make projects, with members, limits, a clean set and a policy of their own."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli._output import Format, FormatOption, print_json, say
from guard.cli._service import caller, open_service
from guard.core.errors import InputError
from guard.core.projects import MemberKind, Priority
from guard.core.roles import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.flow.projects import ProjectView

app = typer.Typer(rich_markup_mode=None, help="Projects: prefixes with members and limits.")
member = typer.Typer(rich_markup_mode=None, help="Who uploads and reviews in a project.")
app.add_typer(member, name="member")
NameArgument = Annotated[str, typer.Argument(help="The project.")]
CleansetOption = Annotated[
    str | None, typer.Option(help="The clean set of its models; `none` for none of its own.")
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        help="The policy of its models: NAME.toml of GUARD_POLICY_FOLDER, or a packaged one; "
        "`none` for the installation's."
    ),
]
PriorityOption = Annotated[
    Priority | None, typer.Option(help="Its share of the scans that are open at once.")
]
ScansOption = Annotated[
    int | None, typer.Option("--scans-a-day", min=0, help="Most uploads in 24 hours; 0: any.")
]
BytesOption = Annotated[
    int | None, typer.Option("--bytes-a-day", min=0, help="Most bytes in 24 hours; 0: any.")
]
OpenOption = Annotated[
    int | None, typer.Option("--open-scans", min=0, help="Most scans open at once; 0: any.")
]
PrincipalOption = Annotated[str | None, typer.Option(help="A principal.")]
GroupOption = Annotated[str | None, typer.Option(help="A group of the identity provider.")]
RoleOption = Annotated[
    Role, typer.Option(help="uploader: may upload there; reviewer: nobody else reviews it.")
]


@app.command()
def create(
    name: NameArgument,
    prefix: Annotated[str, typer.Option(help="BUCKET/PREFIX under which its uploads lie.")],
    cleanset: CleansetOption = None,
    policy: PolicyOption = None,
    priority: PriorityOption = None,
    scans: ScansOption = None,
    size: BytesOption = None,
    open_: OpenOption = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Make a project of what lies under a prefix. Only an operator may."""
    guard = open_service()
    from guard.flow import projects

    wanted = _wanted(cleanset, policy, priority, scans, size, open_)
    projects.create(guard, caller(guard), name, prefix, wanted)
    _print([projects.view(guard, name)], form)
    return 0


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List all projects with their limits and what they used in 24 hours."""
    guard = open_service()
    from guard.flow import projects

    _print(projects.every(guard), form)
    return 0


@app.command()
def show(name: NameArgument, form: FormatOption = Format.TABLE) -> int:
    """Show one project with its members."""
    guard = open_service()
    from guard.flow import projects

    found = projects.view(guard, name)
    _print([found], form)
    if form is Format.TABLE:
        for row in found.members:
            say(f"{row.role}: {row.kind} {row.member}")
    return 0


@app.command("set")
def set_(
    name: NameArgument,
    cleanset: CleansetOption = None,
    policy: PolicyOption = None,
    priority: PriorityOption = None,
    scans: ScansOption = None,
    size: BytesOption = None,
    open_: OpenOption = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Change a project's clean set, policy, priority or limits; what is not named stays."""
    guard = open_service()
    from guard.flow import projects

    wanted = _wanted(cleanset, policy, priority, scans, size, open_)
    projects.change(guard, caller(guard), name, wanted)
    _print([projects.view(guard, name)], form)
    return 0


@member.command()
def add(
    name: NameArgument,
    role: RoleOption,
    principal: PrincipalOption = None,
    group: GroupOption = None,
) -> int:
    """Make a principal or a group a member."""
    guard = open_service()
    from guard.flow import projects

    kind, who = _member(principal, group)
    projects.add_member(guard, caller(guard), name, kind, who, role)
    say(f"{who} is {role} of {name}")
    return 0


@member.command()
def remove(
    name: NameArgument,
    role: RoleOption,
    principal: PrincipalOption = None,
    group: GroupOption = None,
) -> int:
    """End a membership; earlier uploads stay the member's own."""
    guard = open_service()
    from guard.flow import projects

    kind, who = _member(principal, group)
    projects.remove_member(guard, caller(guard), name, kind, who, role)
    say(f"{who} is not {role} of {name} any more")
    return 0


def _member(principal: str | None, group: str | None) -> tuple[MemberKind, str]:
    if (principal is None) is (group is None):
        raise InputError("Name a member with --principal or with --group.", code="bad_member")
    if principal is not None:
        return MemberKind.PRINCIPAL, principal
    return MemberKind.GROUP, group or ""


def _wanted(
    cleanset: str | None,
    policy: str | None,
    priority: Priority | None,
    scans: int | None,
    size: int | None,
    open_: int | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if cleanset is not None:
        found["cleanset"] = None if cleanset == "none" else cleanset
    if policy is not None:
        found["policy"] = None if policy == "none" else policy
    if priority is not None:
        found["priority"] = priority
    for name, value in (("scans_a_day", scans), ("bytes_a_day", size), ("open_scans", open_)):
        if value is not None:
            found[name] = value or None
    return found


def _print(found: "Sequence[ProjectView]", form: Format) -> None:
    if form is Format.JSON:
        print_json([asdict(one) for one in found])
        return
    from guard.cli._render import print_table

    limits = ("scans a day", "bytes a day", "open")
    head = ("name", "prefix", "clean set", "policy", "priority", *limits)
    cells = [
        (
            one.project.name,
            f"{one.project.bucket}/{one.project.prefix}",
            one.project.cleanset or "",
            one.project.policy or "",
            str(one.project.priority),
            _of(one.usage.scans, one.project.scans_a_day),
            _of(one.usage.bytes, one.project.bytes_a_day),
            _of(one.usage.open, one.project.open_scans),
        )
        for one in found
    ]
    print_table(head, cells, empty="no project")


def _of(used: int, limit: int | None) -> str:
    return f"{used}" if limit is None else f"{used} of {limit}"
