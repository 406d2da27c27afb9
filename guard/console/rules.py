"""What decides: the policy in force and what another would say, methods, canaries, clean sets."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from guard.api.access import guard_of
from guard.console._page import page
from guard.console._route import PageRoute
from guard.console._who import who_reads
from guard.core.plain import to_plain
from guard.store import canaries, cleansets, methods
from guard.store.session import reading

MOST_CANARIES = 20
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/policy")
def show_policy(request: Request) -> HTMLResponse:
    """The policies in force, and a form that asks what another one would decide."""
    reader = who_reads(request)
    policies = guard_of(request).policies
    rules = [(one, _flat(one.to_dict())) for one in policies]
    return page(request, "policy.html.jinja", reader, rules=rules)


@router.get("/methods")
def show_methods(request: Request) -> HTMLResponse:
    """The methods that this installation knows, the newest canaries, and the clean sets."""
    reader, guard = who_reads(request), guard_of(request)
    with reading(guard.engine) as session:
        known = methods.list_all(session)
        runs = canaries.list_recent(session, MOST_CANARIES)
        sets = [to_plain(one) for one in cleansets.list_all(session)]
    used = {name for one in guard.policies for name in one.detectors}
    used |= {rule.name for one in guard.policies for rule in one.defenses}
    return page(
        request, "methods.html.jinja", reader, methods=known, runs=runs, sets=sets, used=used
    )


def _flat(value: object, name: str = "") -> list[tuple[str, str]]:
    """Nested rules as rows of a name and a value."""
    if isinstance(value, dict):
        return [
            row
            for key, item in value.items()
            for row in _flat(item, f"{name}.{key}" if name else str(key))
        ]
    return [(name, "–" if value in (None, "", [], ()) else str(value))]
