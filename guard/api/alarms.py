"""Alarms: listed, shown and acknowledged, as `guard alarms` has it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.answers import AlarmAnswer, Alarms
from guard.api.problems import USUAL, refusals
from guard.flow.principals import Principal

router = APIRouter(
    prefix="/alarms",
    tags=["operation"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)
Caller = Annotated[Principal, Depends(require_token)]


class Acknowledgement(BaseModel):
    """What was found or done; signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=1, max_length=10_000)


@router.get("", responses=refusals(400))
def list_alarms(
    request: Request,
    *,
    closed: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Alarms:
    """List open alarms, the newest first; with `closed` those that are over as well."""
    from guard.flow import alarms

    rows = alarms.listed(guard_of(request), limit, closed=closed, scope=scope_of(request))
    return Alarms(alarms=[AlarmAnswer.model_validate(one.to_dict()) for one in rows])


@router.get("/{alarm_id}", responses=refusals(404))
def show_alarm(alarm_id: str, request: Request) -> AlarmAnswer:
    """Show one alarm, by its id or the first 4 characters of it or more."""
    from guard.flow import alarms

    found = alarms.show(guard_of(request), alarm_id, scope_of(request))
    return AlarmAnswer.model_validate(found.to_dict())


@router.post("/{alarm_id}/acknowledge", responses=refusals(400, 403, 404, 409))
def acknowledge(
    alarm_id: str, wanted: Acknowledgement, request: Request, who: Caller
) -> AlarmAnswer:
    """Acknowledge an alarm, as an operator, which closes it unless it is about what lasts."""
    from guard.flow import alarms

    seen = alarms.acknowledge(guard_of(request), who, alarm_id, wanted.reason)
    return AlarmAnswer.model_validate(seen.to_dict())
