"""Answer questions about scans and verdicts, and nominate uploads by hand."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.answers import (
    NominationAnswer,
    ProgressAnswer,
    ReviewAnswer,
    ScanAnswer,
    ScanDetail,
    Scans,
    VerdictAnswer,
    VerdictDetail,
)
from guard.api.problems import USUAL, refusals
from guard.core.errors import InputError, IntegrityMismatch
from guard.core.plain import to_plain
from guard.core.states import ScanState
from guard.flow.principals import Principal
from guard.flow.signed import signed
from guard.flow.submit import nominated
from guard.store import ledger, reviews, scans
from guard.store.rows import NominationState
from guard.store.session import reading

MOST_AT_ONCE = 200
router = APIRouter(
    tags=["scans"], dependencies=[Depends(require_token)], route_class=BoundedRoute, responses=USUAL
)


class Submission(BaseModel):
    """An object of an intake bucket; without a version id its latest version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str = Field(min_length=1, max_length=255)
    key: str = Field(min_length=1, max_length=1024)
    version_id: str | None = Field(default=None, max_length=1024)


class NotNominated(InputError):
    """The object was not accepted as a nomination; the message says why."""

    code = "not_nominated"


@router.post("/scans", status_code=202, responses=refusals(400, 403, 422, 429))
async def submit_object(
    wanted: Submission,
    request: Request,
    response: Response,
    who: Annotated[Principal, Depends(require_token)],
) -> NominationAnswer:
    """Have an object looked at that is in an intake bucket already."""
    place = wanted.bucket, wanted.key, wanted.version_id
    row = await run_in_threadpool(nominated, guard_of(request), who, *place)
    if row.state in (NominationState.IGNORED, NominationState.REFUSED):
        raise NotNominated(row.reason)
    response.headers["Location"] = f"/nominations/{row.id}"
    return NominationAnswer.of(row)


@router.get("/scans", responses=refusals(400))
def list_scans(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 50,
    state: ScanState | None = None,
) -> Scans:
    """List scans, the newest first."""
    with reading(guard_of(request).engine) as session:
        rows = scans.list_recent(session, limit, state=state, scope=scope_of(request))
    return Scans(scans=[ScanAnswer.of(row) for row in rows])


@router.get("/scans/{scan_id}", responses=refusals(404, 409))
def show_scan(scan_id: str, request: Request) -> ScanDetail:
    """One scan, by its id or an unambiguous start of it, with every verdict it led to."""
    guard, scope = guard_of(request), scope_of(request)
    with reading(guard.engine) as session:
        row = scans.get(session, scan_id, scope)
        verdicts = ledger.for_scan(session, row.id)
        if row.verdict_id and row.verdict_id not in {verdict.id for verdict in verdicts}:
            verdicts.append(ledger.get(session, row.verdict_id))  # a re-scan's
    return ScanDetail(
        **ScanAnswer.of(row).model_dump(),
        progress=None
        if (progress := row.running) is None
        else ProgressAnswer.model_validate(progress),
        verdicts=[VerdictAnswer.of(verdict, guard.now()) for verdict in verdicts],
    )


@router.get("/verdicts/{verdict_id}", responses=refusals(404))
def show_verdict(verdict_id: str, request: Request) -> VerdictDetail:
    """A verdict with its signed statement (DSSE): verify that, not this answer."""
    guard, scope = guard_of(request), scope_of(request)
    with reading(guard.engine) as session:
        row = ledger.get(session, verdict_id, scope)
        found = reviews.for_verdict(session, row.id)
    return VerdictDetail(
        **VerdictAnswer.of(row, guard.now()).model_dump(),
        facts=_facts(row.envelope),
        envelope=dict(row.envelope),
        reviews=[ReviewAnswer.of(review) for review in found],
    )


def _facts(envelope: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = to_plain(signed(envelope).facts.natural_apart())
    except IntegrityMismatch:
        return None
    return facts
