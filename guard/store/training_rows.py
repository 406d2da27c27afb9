"""The rows of jobs on training sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from guard.core.training_jobs import JobKind, JobOrder, JobState


@dataclass(frozen=True, kw_only=True)
class TrainingJobRow:
    """A sift or a retraining that somebody asked for.

    Attributes:
        request: digest of `wanted`; open jobs have different ones.
        scan_id: the scan of the model that the set taught.
        principal: who asked first.
        budget_seconds: what the policy allowed when it was asked for; `spent_seconds` is what all
            its workers used of it.
        done: 0..1, with a `note` for people; `seconds_left` is an estimate, if there is one.
        cancelled_by: who wants it to end; its worker ends it soon.
        files: digests of the blobs from which another worker goes on, by file name.
        result: what came of it, as plain values: a sift's report, or what is known of a network.
        child_digest: the retrained artifact, with `child_scan_id`, the scan that vets it.
        error: why it failed, with the `code` of the error.
    """

    id: str
    kind: JobKind
    request: str
    wanted: JobOrder
    scan_id: str
    artifact_digest: str
    state: JobState
    principal: str
    budget_seconds: float
    spent_seconds: float
    done: float
    note: str
    seconds_left: float | None
    cancelled_by: str | None
    files: Mapping[str, str]
    result: Mapping[str, Any] | None
    child_digest: str | None
    child_scan_id: str | None
    error: str | None
    code: str | None
    attempts: int
    lease_token: int
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
