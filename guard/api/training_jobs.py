"""Ask for sifts and retrainings of registered models, follow them, and cancel them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from guard.api.access import BoundedRoute, guard_of, require_token, scope_of
from guard.api.answers import JobAnswer, JobDetail, Jobs
from guard.api.problems import USUAL, refusals
from guard.core.errors import InputError
from guard.core.training_jobs import JobKind
from guard.flow import training_jobs
from guard.flow.principals import Principal
from guard.flow.training_jobs import Asked
from guard.store.training_rows import TrainingJobRow

MOST_AT_ONCE = 200
router = APIRouter(
    tags=["training sets"],
    dependencies=[Depends(require_token)],
    route_class=BoundedRoute,
    responses=USUAL,
)


class WantedSift(BaseModel):
    """A sift of a registered model's training set.

    `model` is an artifact's digest, a name of uploads or a scan's id. `training_set` is a stored
    name, or an `s3://` address with its `digest`; without one, that of the model's config.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=1024)
    training_set: str | None = Field(default=None, min_length=1, max_length=1024)
    digest: str | None = Field(default=None, min_length=64, max_length=64)
    cleanset: str | None = Field(default=None, min_length=1, max_length=255)
    seed: int = Field(default=0, ge=0, lt=1 << 31)


class WantedRetraining(WantedSift):
    """A retraining: a sift, and a network trained anew with `method` on what that leaves."""

    method: str = Field(min_length=1, max_length=64)
    parameters: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=50)


@router.post("/sifts", status_code=202, responses=refusals(400, 403, 404, 409, 429))
def ask_for_sift(
    wanted: WantedSift,
    request: Request,
    response: Response,
    who: Annotated[Principal, Depends(require_token)],
) -> JobAnswer:
    """Have the training set of a model looked at; the report is read at the job."""
    asked = Asked(kind=JobKind.SIFT, **wanted.model_dump())
    return _taken(training_jobs.request(guard_of(request), who, asked), response, "sifts")


@router.post("/retrainings", status_code=202, responses=refusals(400, 403, 404, 409, 429))
def ask_for_retraining(
    wanted: WantedRetraining,
    request: Request,
    response: Response,
    who: Annotated[Principal, Depends(require_token)],
) -> JobAnswer:
    """Have a network trained anew; it is vetted like any upload, and not published."""
    asked = Asked(kind=JobKind.RETRAIN, **wanted.model_dump())
    return _taken(training_jobs.request(guard_of(request), who, asked), response, "retrainings")


@router.get("/sifts", responses=refusals(400))
def list_sifts(request: Request, limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 50) -> Jobs:
    """List sifts by request, the newest first."""
    return _listed(request, JobKind.SIFT, limit)


@router.get("/retrainings", responses=refusals(400))
def list_retrainings(
    request: Request, limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 50
) -> Jobs:
    """List retrainings, the newest first."""
    return _listed(request, JobKind.RETRAIN, limit)


@router.get("/sifts/{job_id}", responses=refusals(404, 409))
def show_sift(job_id: str, request: Request) -> JobDetail:
    """How far a sift is; once it is done, `result` is its report."""
    return JobDetail.of(_found(request, job_id, JobKind.SIFT))


@router.get("/retrainings/{job_id}", responses=refusals(404, 409))
def show_retraining(job_id: str, request: Request) -> JobDetail:
    """How far a retraining is; once it is done, `child_scan_id` is the scan of its network."""
    return JobDetail.of(_found(request, job_id, JobKind.RETRAIN))


@router.post("/sifts/{job_id}/cancel", status_code=202, responses=refusals(403, 404, 409))
def cancel_sift(
    job_id: str, request: Request, who: Annotated[Principal, Depends(require_token)]
) -> JobAnswer:
    """Have a sift end without a report."""
    return _cancelled(request, who, job_id, JobKind.SIFT)


@router.post("/retrainings/{job_id}/cancel", status_code=202, responses=refusals(403, 404, 409))
def cancel_retraining(
    job_id: str, request: Request, who: Annotated[Principal, Depends(require_token)]
) -> JobAnswer:
    """Have a retraining end without a network; its worker, if it has one, sees it in seconds."""
    return _cancelled(request, who, job_id, JobKind.RETRAIN)


def _taken(job: TrainingJobRow, response: Response, place: str) -> JobAnswer:
    response.headers["Location"] = f"/{place}/{job.id}"
    return JobAnswer.of(job)


def _listed(request: Request, kind: JobKind, limit: int) -> Jobs:
    rows = training_jobs.recent(guard_of(request), limit, kind=kind, scope=scope_of(request))
    return Jobs(jobs=[JobAnswer.of(row) for row in rows])


def _found(request: Request, job_id: str, kind: JobKind) -> TrainingJobRow:
    job = training_jobs.find(guard_of(request), job_id, scope_of(request))
    if job.kind is not kind:
        raise InputError(f"Job {job.id} is no {kind}.", code="unknown_training_job")
    return job


def _cancelled(request: Request, who: Principal, job_id: str, kind: JobKind) -> JobAnswer:
    job = _found(request, job_id, kind)
    return JobAnswer.of(training_jobs.cancel(guard_of(request), who, job.id))
