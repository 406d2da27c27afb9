"""Waive findings: one reviewer asks, another agrees, as `guard waive` has it.

The use case is imported when it is first asked for: it loads NumPy, and no method.
"""

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.answers import WaiverAnswer, WaiverDone, Waivers
from guard.api.problems import USUAL, refusals
from guard.flow.principals import Principal

router = APIRouter(
    prefix="/waivers",
    tags=["waivers"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)
Caller = Annotated[Principal, Depends(require_token)]
MAX_REASON = 10_000


class WaiverRequest(BaseModel):
    """One finding about one artifact, why it does not count, and the day (UTC) on which that ends.

    `artifact` is the SHA-256 of weights, or a scan; `finding` is METHOD, or METHOD:CLASS.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    artifact: str = Field(min_length=1, max_length=64)
    finding: str = Field(min_length=1, max_length=200)
    reason: str = Field(max_length=MAX_REASON)
    until: date


class WaiverEnd(BaseModel):
    """Why a waiver ends; signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(max_length=MAX_REASON)


@router.post("", status_code=201, responses=refusals(400, 403, 404, 409, 412))
def ask(wanted: WaiverRequest, request: Request, response: Response, who: Caller) -> WaiverAnswer:
    """Ask for a waiver, as a reviewer; it counts once another reviewer agrees."""
    from guard.flow import waivers

    end = datetime.combine(wanted.until, time(), tzinfo=UTC)
    made = waivers.ask(
        guard_of(request), who, wanted.artifact, wanted.finding, reason=wanted.reason, until=end
    )
    response.headers["Location"] = f"/waivers/{made.waiver_id}"
    return WaiverAnswer.of(made, "waiting")


@router.get("")
def list_waivers(request: Request) -> Waivers:
    """List every waiver with its state, the newest first."""
    from guard.flow import waivers

    rows = waivers.listed(guard_of(request), scope_of(request))
    return Waivers(waivers=[WaiverAnswer.of(row.waiver, row.state) for row in rows])


@router.get("/{waiver_id}", responses=refusals(404))
def show_waiver(waiver_id: str, request: Request) -> WaiverAnswer:
    """Show one waiver, by its id or the first 8 characters of it or more."""
    from guard.flow import waivers

    row = waivers.show(guard_of(request), waiver_id, scope_of(request))
    return WaiverAnswer.of(row.waiver, row.state)


@router.post("/{waiver_id}/approve", responses=refusals(400, 403, 404, 409, 412))
def approve(waiver_id: str, request: Request, who: Caller) -> WaiverDone:
    """Agree, as a reviewer, to what another one asked for; the artifact is decided anew."""
    from guard.flow import waivers

    made, opened = waivers.approve(guard_of(request), who, waiver_id)
    return WaiverDone.done(made, "in force", opened)


@router.post("/{waiver_id}/revoke", responses=refusals(400, 403, 404, 409, 412))
def revoke(waiver_id: str, wanted: WaiverEnd, request: Request, who: Caller) -> WaiverDone:
    """End a waiver, as a reviewer or an operator; the artifact is decided anew."""
    from guard.flow import waivers

    ended, opened = waivers.revoke(guard_of(request), who, waiver_id, wanted.reason)
    return WaiverDone.done(ended, "revoked", opened)
