"""The rows that the named queries return: one frozen dataclass per table.

Field names are column names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from guard.core.notes import ScanNotes, ScanProgress
from guard.core.roles import Act, Role
from guard.core.states import ScanState, Verdict
from guard.core.trainset import TrainingSetFacts


class NominationState(StrEnum):
    """The outcome of one notice that an object exists."""

    NEW = "new"
    ACCEPTED = "accepted"  # a scan was made, or existed already
    IGNORED = "ignored"  # nothing to vet (a config.json, a folder mark)
    REFUSED = "refused"  # `reason` explains it


class ArtifactKind(StrEnum):
    """Where bytes came from."""

    UPLOAD = "upload"  # as the uploader sent them
    CANONICAL = "canonical"  # the guard's own serialisation of an upload, vetted and served
    PURIFIED = "purified"  # made by a defense from its parent
    RETRAINED = "retrained"  # trained anew on the training set of its parent


class PublicationState(StrEnum):
    """Whether an artifact should be served."""

    ACTIVE = "active"
    WITHDRAWN = "withdrawn"


class Decided(StrEnum):
    """A reviewer's decision about a held verdict."""

    APPROVE = "approve"
    REJECT = "reject"


class MethodState(StrEnum):
    """The state of a method; a new method is evaluated before it decides."""

    EVALUATION = "evaluation"
    ENABLED = "enabled"
    RETIRED = "retired"


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on one row until another worker with a higher token takes over.

    `scan_id` is the id of the row: a scan's, or a training job's.
    """

    scan_id: str
    token: int
    attempts: int  # claims since the last stage that succeeded


@dataclass(frozen=True, kw_only=True)
class ScanRow:
    """The work on one object version; `verdict_id` is the verdict in force for its model."""

    id: str
    bucket: str
    key: str
    version_id: str | None
    name: str
    upload_digest: str | None
    canonical_digest: str | None
    manifest: str | None  # config.json as it was uploaded, valid or not
    detail: ScanNotes
    cleanset_digest: str | None
    cleanset_name: str | None
    policy_digest: str | None
    state: ScanState
    verdict_id: str | None
    error: str | None
    submitted_by: str | None
    parent_scan_id: str | None
    uploaded_at: datetime | None  # when the store took the upload; None where nobody recorded it
    attempts: int
    lease_token: int
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def running(self) -> ScanProgress | None:
        """How far its detectors are; None where none run."""
        return self.detail.progress if self.state is ScanState.DETECTING else None


@dataclass(frozen=True, kw_only=True)
class NominationRow:
    """One notice that an object exists."""

    id: str
    bucket: str
    key: str
    version_id: str | None
    source: str
    received_at: datetime
    state: NominationState
    reason: str
    scan_id: str | None


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """Immutable bytes; `size` in bytes."""

    digest: str
    size: int
    kind: ArtifactKind
    parent_digest: str | None
    manifest: Mapping[str, Any] | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """One verdict in the chain.

    `hash` covers every other field and `previous`, the hash of the row before.
    """

    seq: int
    id: str
    artifact_digest: str
    scan_id: str
    verdict: Verdict
    envelope: Mapping[str, Any]
    previous: str
    hash: str
    issued_at: datetime
    expires_at: datetime
    policy_digest: str


@dataclass(frozen=True, kw_only=True)
class ReviewRow:
    """A person's decision about one verdict, and `new_verdict_id`, the verdict that it led to."""

    id: str
    verdict_id: str
    reviewer: str
    decision: Decided
    reason: str
    new_verdict_id: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """A bearer token; `hash` is the SHA-256 of its secret, which is stored nowhere."""

    id: str
    principal: str
    role: Role
    hash: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    """A browser that is signed in; `hash` is the SHA-256 of its cookie's secret.

    It acts with the tokens of `token_ids`. The operator `api` has none; `seal` then is the HMAC of
    its token under the cookie's secret. `attempt` is the SHA-256 of the state with which its person
    came from the identity provider; one state opens one session. `sid` is the SHA-256 of issuer and
    session there, where the provider names it.
    """

    id: str
    hash: str
    principal: str
    token_ids: list[str]
    seal: str
    attempt: str | None
    sid: str | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class IdentityRow:
    """A person of an identity provider, as they came last; `principal` is nobody else."""

    id: str
    issuer: str
    subject: str
    principal: str
    groups: list[str]
    created_at: datetime
    last_used_at: datetime


@dataclass(frozen=True, kw_only=True)
class OwnerRow:
    """A principal that may upload under a prefix of a bucket, until `removed_at`."""

    id: str
    bucket: str
    prefix: str
    principal: str
    created_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ActRow:
    """One act of a principal; `role` and `token_id` are empty for a login without a token.

    `subject` is what it is about, `detail` a text for people, `facts` what a program reads of it.
    """

    seq: int
    id: str
    act: Act
    principal: str
    role: str
    authenticated: bool
    token_id: str
    subject: str
    detail: str
    facts: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, kw_only=True)
class PublicationRow:
    """An artifact that is served, or was served once."""

    id: str
    digest: str
    name: str
    version: str
    publisher: str
    archive_digest: str
    receipt: Mapping[str, Any]
    envelope: Mapping[str, Any]
    state: PublicationState
    at: datetime
    withdrawn_at: datetime | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class RevocationRow:
    """A digest that is never served again."""

    id: str
    digest: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class LedgerActRow:
    """One signed act of the ledger; its kinds: `guard.attest.acts.TYPES`."""

    seq: int
    id: str
    kind: str
    subject: str
    envelope: Mapping[str, Any]
    previous: str
    hash: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """A checkpoint that was written; `digest` is the SHA-256 of its line."""

    number: int
    digest: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class OutboxRow:
    """One message; the payload holds ids only, and a relay sends it until `taken_until`."""

    id: int
    task: str
    payload: Mapping[str, Any]
    created_at: datetime
    not_before: datetime
    sent_at: datetime | None
    taken_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeadLetterRow:
    """One message that no task could handle."""

    id: str
    task: str
    payload: Mapping[str, Any]
    error: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class AlarmRow:
    """Something that a person should see; it is open until `cleared_at`."""

    id: str
    kind: str
    subject: str
    detail: str
    at: datetime
    cleared_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A method that this installation knows; `kind` is "detector" or "defense"."""

    kind: str
    name: str
    version: int
    state: MethodState


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """Whose a served name is.

    `newest_scan_id` is the newest upload ever published under the name; `rolled_back_to` the digest
    that a rollback put in its place, None where none did. `publisher_scan_id` and `publisher_token`
    are the lease under which something was last published under the name.
    """

    name: str
    bucket: str
    prefix: str
    owner: str | None
    since: datetime
    newest_scan_id: str | None
    rolled_back_to: str | None
    publisher_scan_id: str | None
    publisher_token: int | None


@dataclass(frozen=True, kw_only=True)
class CanaryRow:
    """One run of the canary on a worker.

    `methods` is the digest of the methods that were tried, `trials` holds the result of each trial.
    """

    id: str
    worker: str
    methods: str
    passed: bool
    trials: Sequence[Mapping[str, Any]]
    at: datetime


@dataclass(frozen=True, kw_only=True)
class TrainingSetRow:
    """A named training set; `class_names` are empty where the set's own count."""

    name: str
    uri: str
    class_names: tuple[str, ...]
    facts: TrainingSetFacts
    added_at: datetime
