"""The answers that the API makes from rows, as JSON whose strings cannot control a terminal."""

from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from guard.core.errors import IntegrityMismatch
from guard.core.plain import to_plain
from guard.core.text import printable
from guard.core.waivers import Waiver
from guard.flow.signed import signed
from guard.store.rows import LedgerRow, NominationRow, ReviewRow, ScanRow
from guard.store.training_rows import TrainingJobRow

VERDICT_SCHEMA = "https://registry-guard.dev/schemas/verdict/v2"


class CleanJson(JSONResponse):
    """JSON whose control and invisible characters are escaped, since uploaders choose names."""

    def render(self, content: Any) -> bytes:
        return super().render(_clean(content))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Accepted(_Answer):
    """Recorded nominations; `GET /nominations/{id}` shows what becomes of each."""

    nominations: list[str]


class NominationAnswer(_Answer):
    """The state of a nomination, that is, of a notice that an object exists."""

    id: str
    bucket: str
    key: str
    version_id: str | None
    source: str
    received_at: datetime
    state: str
    reason: str
    scan_id: str | None

    @classmethod
    def of(cls, row: NominationRow) -> "NominationAnswer":
        """Make the answer from a row."""
        return cls.model_validate(row)


class ScanAnswer(_Answer):
    """The scan of one upload; `verdict_id` is the verdict in force."""

    id: str
    bucket: str
    key: str
    version_id: str | None
    name: str
    state: str
    verdict_id: str | None
    error: str | None
    upload_digest: str | None
    canonical_digest: str | None
    cleanset_name: str | None
    cleanset_digest: str | None
    policy_digest: str | None
    submitted_by: str | None
    parent_scan_id: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: ScanRow) -> "ScanAnswer":
        """Make the answer from a row."""
        return cls.model_validate(row)


class Scans(_Answer):
    """A list of scans, the newest first."""

    scans: list[ScanAnswer]


class ProgressAnswer(_Answer):
    """How far the detectors of a running scan are.

    `done` is in 0..1, by planned seconds; `seconds_left` is null where nobody knows.
    """

    done: float
    note: str
    seconds_left: float | None


class ScanDetail(ScanAnswer):
    """One scan with every verdict that it led to, the oldest first.

    `progress` is null unless its detectors run.
    """

    progress: ProgressAnswer | None = None
    verdicts: list["VerdictAnswer"]


class ReviewAnswer(_Answer):
    """A reviewer's decision on a verdict."""

    reviewer: str
    decision: str
    reason: str
    new_verdict_id: str | None
    at: datetime

    @classmethod
    def of(cls, row: ReviewRow) -> "ReviewAnswer":
        """Make the answer from a row."""
        return cls.model_validate(row)


class WaiverAnswer(_Answer):
    """A waiver, as `guard waive list --format json` prints it too.

    `state` is `waiting`, `in force`, `revoked`, `expired` or `void`. Its format is
    published in `docs/schemas/waiver.schema.json`.
    """

    waiver_id: str
    artifact: str
    method: str
    version: int
    target: int | str | None
    evidence: list[str]
    policy: str
    reason: str
    owner: str
    approver: str
    until: datetime
    state: str

    @classmethod
    def of(cls, waiver: Waiver, state: str) -> "WaiverAnswer":
        """Make the answer from a waiver and its state."""
        return cls.model_validate({**vars(waiver), "state": state})


class WaiverDone(WaiverAnswer):
    """A waiver with the re-scans that decide about its artifact anew, from what is stored."""

    decided_anew: list[str]

    @classmethod
    def done(cls, waiver: Waiver, state: str, opened: list[str]) -> "WaiverDone":
        """Make the answer from a waiver, its state, and the ids of the re-scans."""
        return cls(**vars(waiver), state=state, decided_anew=opened)


class Waivers(_Answer):
    """A list of waivers, the newest first."""

    waivers: list[WaiverAnswer]


class VerdictAnswer(_Answer):
    """One row of the ledger.

    This answer does not decide whether something may be served; only the gate does, from the
    envelope. `gate` is what is signed there about a gate that only warns: its mode, and what an
    enforcing one would have done; null where the gate enforces.
    """

    id: str
    seq: int
    artifact_digest: str
    scan_id: str
    verdict: str
    issued_at: datetime
    expires_at: datetime
    expired: bool
    policy_digest: str
    previous: str
    hash: str
    waivers: list[dict[str, Any]] = []
    gate: dict[str, str] | None

    @classmethod
    def of(cls, row: LedgerRow, now: datetime) -> "VerdictAnswer":
        """From a row, as of `now`: a verdict that has expired is no pass, whatever it says.

        `waivers` are the findings that did not count, and `gate` is what a gate that only warns
        would have done otherwise, both by the signed statement.
        """
        waivers: list[dict[str, Any]] = []
        stated: dict[str, str] | None = None
        # `guard verify` says it where it cannot be read, and the gate refuses the verdict.
        with suppress(IntegrityMismatch):
            known = signed(row.envelope)
            waivers, stated = to_plain(known.facts.waivers), to_plain(known.gate)
        expired = row.expires_at <= now
        return cls.model_validate(
            {**vars(row), "expired": expired, "waivers": waivers, "gate": stated}
        )


class VerdictDetail(VerdictAnswer):
    """A verdict with its signed statement, the facts in it, and its reviews.

    `facts` is null where the envelope does not contain a verdict of the guard. `schema` names the
    format of this answer, published in `docs/schemas/verdict.schema.json`.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True, serialize_by_alias=True)

    schema_: str = Field(default=VERDICT_SCHEMA, serialization_alias="schema")
    facts: dict[str, Any] | None
    envelope: dict[str, Any]
    reviews: list[ReviewAnswer]


class JobAnswer(_Answer):
    """A job on a training set.

    `training_set` is the set as it was named, with the digest that it must have. `done` is a share
    in 0..1, and `seconds_left` an estimate, null where there is none. A job that
    was cancelled while a worker is on it is open until that worker has seen it. `child_digest` is
    the artifact that came of a retraining, and `child_scan_id` the scan that vets it.
    """

    id: str
    kind: str
    state: str
    model: str
    scan_id: str
    training_set: dict[str, Any]
    cleanset_digest: str
    method: str
    parameters: dict[str, Any]
    seed: int
    principal: str
    cancelled_by: str | None
    done: float
    note: str
    seconds_left: float | None
    spent_seconds: float
    budget_seconds: float
    child_digest: str | None
    child_scan_id: str | None
    error: str | None
    code: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: TrainingJobRow) -> Self:
        """Make the answer from a row."""
        wanted = row.wanted
        return cls.model_validate(
            {
                **vars(row),
                "model": row.artifact_digest,
                "training_set": to_plain(wanted.training_set),
                "cleanset_digest": wanted.cleanset,
                "method": wanted.method,
                "parameters": dict(wanted.parameters),
                "seed": wanted.seed,
            }
        )


class JobDetail(JobAnswer):
    """One job with its result.

    That of a sift is its report, with the most conspicuous suspects only (`suspects_total` counts
    all); that of a retraining is what is known of the network, as in a report.
    """

    result: dict[str, Any] | None


class Jobs(_Answer):
    """A list of jobs, the newest first."""

    jobs: list[JobAnswer]


class AlarmAnswer(_Answer):
    """Something that a person should see; it is open while `cleared_at` is null.

    `reason` is that of the last acknowledgement.
    """

    id: str
    kind: str
    subject: str
    detail: str
    at: datetime
    cleared_at: datetime | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    reason: str


class Alarms(_Answer):
    """A list of alarms, the newest first."""

    alarms: list[AlarmAnswer]


class DeadLetterAnswer(_Answer):
    """A message that no worker could handle, and who had it tried again last."""

    id: str
    task: str
    payload: dict[str, Any]
    error: str
    at: datetime
    retried_by: str | None
    retried_at: datetime | None


class DeadLetters(_Answer):
    """A list of dead letters, the newest first."""

    dead_letters: list[DeadLetterAnswer]
