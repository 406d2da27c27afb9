"""Destinations of notifications: made, tested and removed by operators; their delivery log."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.problems import USUAL, refusals
from guard.core.hooks import DeliveryState, HookKind
from guard.flow import readers
from guard.flow.principals import Principal

router = APIRouter(
    prefix="/hooks",
    tags=["operation"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)
Caller = Annotated[Principal, Depends(require_token)]
_WHAT = "Where events go"


class WantedHook(BaseModel):
    """A destination to be made; `secret` is a webhook's, and is made where none is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: HookKind
    address: str = Field(min_length=1, max_length=2000)
    secret: str = Field(default="", max_length=100)
    types: list[str] = Field(default=[], max_length=50)
    prefixes: list[str] = Field(default=[], max_length=50)


class HookAnswer(BaseModel):
    """A destination, without what is secret of it."""

    id: str
    kind: HookKind
    shown: str
    types: list[str]
    prefixes: list[str]
    created_by: str
    created_at: datetime
    removed_at: datetime | None
    failures: int
    resting_until: datetime | None


class NewHookAnswer(HookAnswer):
    """A destination as it was just made; its secret is shown this once, null where it has none."""

    secret: str | None


class Hooks(BaseModel):
    """The destinations in force, the oldest first."""

    hooks: list[HookAnswer]


class AttemptAnswer(BaseModel):
    """One try; `status` is null where no answer came."""

    at: datetime
    status: int | None
    error: str
    seconds: float


class DeliveryAnswer(BaseModel):
    """One event to one destination, with all tries; `next_at` is null once it is over."""

    id: str
    hook_id: str
    event_id: str
    type: str
    name: str
    state: DeliveryState
    created_at: datetime
    ended_at: datetime | None
    next_at: datetime | None
    attempts: list[AttemptAnswer]


class DeliveryLog(BaseModel):
    """Deliveries, the newest first."""

    deliveries: list[DeliveryAnswer]


class Queued(BaseModel):
    """A delivery that the worker of the queue `notify` is to send."""

    delivery_id: str
    event_id: str


@router.get("")
def list_hooks(request: Request) -> Hooks:
    """List the destinations in force, without what is secret of them."""
    from guard.flow import hooks

    readers.check_everything(scope_of(request), _WHAT)
    return Hooks(hooks=[_answer(hooks.shown(row)) for row in hooks.listed(guard_of(request))])


@router.post("", status_code=201, responses=refusals(400, 403, 409))
def add_hook(wanted: WantedHook, request: Request, who: Caller) -> NewHookAnswer:
    """Make a destination, as an operator; nothing is sent to it yet."""
    from guard.flow import hooks

    made = hooks.add(
        guard_of(request),
        who,
        wanted.kind,
        wanted.address,
        secret=wanted.secret,
        types=wanted.types,
        prefixes=wanted.prefixes,
    )
    return NewHookAnswer.model_validate({**hooks.shown(made.row), "secret": made.secret or None})


@router.get("/deliveries", responses=refusals(400, 404))
def list_deliveries(
    request: Request,
    *,
    hook: Annotated[str | None, Query(max_length=32)] = None,
    dead: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> DeliveryLog:
    """List deliveries with their tries, the newest first; of one destination, or dead ones only."""
    from guard.flow import hooks

    readers.check_everything(scope_of(request), _WHAT)
    rows = hooks.log(guard_of(request), hook, dead=dead, limit=limit)
    return DeliveryLog(deliveries=[DeliveryAnswer.model_validate(one.to_dict()) for one in rows])


@router.post("/deliveries/{delivery_id}/retry", status_code=202, responses=refusals(403, 404, 409))
def retry_delivery(delivery_id: str, request: Request, who: Caller) -> Queued:
    """Have a delivery that is over sent once more, as an operator, under the same id."""
    from guard.flow import hooks

    row = hooks.retry(guard_of(request), who, delivery_id)
    return Queued(delivery_id=row.id, event_id=row.event_id)


@router.get("/{hook_id}", responses=refusals(404))
def show_hook(hook_id: str, request: Request) -> HookAnswer:
    """Show one destination, by its id or the first 4 characters of it or more."""
    from guard.flow import hooks

    readers.check_everything(scope_of(request), _WHAT)
    return _answer(hooks.shown(hooks.show(guard_of(request), hook_id)))


@router.post("/{hook_id}/test", status_code=202, responses=refusals(403, 404, 409))
def test_hook(hook_id: str, request: Request, who: Caller) -> Queued:
    """Have a test event sent to one destination, as an operator."""
    from guard.flow import hooks

    row = hooks.test(guard_of(request), who, hook_id)
    return Queued(delivery_id=row.id, event_id=row.event_id)


@router.post("/{hook_id}/remove", responses=refusals(403, 404, 409))
def remove_hook(hook_id: str, request: Request, who: Caller) -> HookAnswer:
    """Remove a destination for good, as an operator; its address and secret are forgotten."""
    from guard.flow import hooks

    return _answer(hooks.shown(hooks.remove(guard_of(request), who, hook_id)))


def _answer(facts: dict[str, Any]) -> HookAnswer:
    return HookAnswer.model_validate(facts)
