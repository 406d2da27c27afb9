"""What decides: the policy in force and what another would say, methods, canaries, clean sets."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of, scope_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.core.errors import PolicyError
from guard.core.plain import to_plain
from guard.flow.context import Guard
from guard.store import canaries, cleansets, methods, projects
from guard.store.session import reading

MOST_CANARIES = 20
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/policy")
def show_policy(request: Request) -> HTMLResponse:
    """The policies in force, and a form that asks what another one would decide."""
    reader, guard, scope = who_reads(request), guard_of(request), scope_of(request)
    policies = guard.policies
    rules = [(one, _flat(one.to_dict())) for one in policies]
    with reading(guard.engine) as session:
        own = [one for one in projects.with_policy(session) if scope.reads_project(one.name)]
    return page(
        request,
        "policy.html.jinja",
        reader,
        rules=rules,
        own=[_of_project(guard, one.name, one.policy or "") for one in own],
    )


@router.get("/methods")
def show_methods(request: Request) -> HTMLResponse:
    """The methods that this installation knows, the newest canaries, and the clean sets."""
    reader, guard, scope = who_reads(request), guard_of(request), scope_of(request)
    with reading(guard.engine) as session:
        known = methods.list_all(session)
        runs = canaries.list_recent(session, MOST_CANARIES)
        others = {
            one.cleanset for one in projects.list_all(session) if not scope.reads_project(one.name)
        }
        sets = [to_plain(one) for one in cleansets.list_all(session) if one.name not in others]
    used = {name for one in guard.policies for name in one.detectors}
    used |= {rule.name for one in guard.policies for rule in one.defenses}
    return page(
        request, "methods.html.jinja", reader, methods=known, runs=runs, sets=sets, used=used
    )


def _of_project(guard: Guard, project: str, name: str) -> dict[str, Any]:
    """A project's own policy with its rules, or why it clears nothing."""
    try:
        policy = guard.named_policy(name)
    except PolicyError as error:
        return {"project": project, "name": name, "why": error.sentence, "rules": []}
    rules = _flat(policy.to_dict())
    return {"project": project, "name": name, "why": "", "policy": policy, "rules": rules}


def _flat(value: object, name: str = "") -> list[tuple[str, str]]:
    """Nested rules as rows of a name and a value."""
    if isinstance(value, dict):
        return [
            row
            for key, item in value.items()
            for row in _flat(item, f"{name}.{key}" if name else str(key))
        ]
    return [(name, "–" if value in (None, "", [], ()) else str(value))]
