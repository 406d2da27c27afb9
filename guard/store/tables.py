"""The tables, which a test compares with the migrations.

No foreign key cascades: evidence is kept even if the artifact is not.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from guard.core.notes import ScanNotes
from guard.core.roles import Act, Role
from guard.core.states import ScanState, Verdict
from guard.store import (  # noqa: F401 - of the same metadata
    access_tables,
    console_tables,
    notify_tables,
    project_tables,
    training_tables,
)
from guard.store._table import DIGEST, ID, Base, only
from guard.store.rows import ArtifactKind, Decided, MethodState, NominationState, PublicationState
from guard.store.types import EnumText, EnvelopeText, Notes, PlainJson, Utc


class Scan(Base):
    """The work on one object version. A re-scan is a new row with `parent_scan_id`."""

    __tablename__ = "scans"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    version_id: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text, index=True)
    upload_digest: Mapped[str | None] = mapped_column(DIGEST, index=True)
    canonical_digest: Mapped[str | None] = mapped_column(DIGEST, index=True)
    manifest: Mapped[str | None] = mapped_column(
        Text
    )  # config.json as it was uploaded, valid or not
    detail: Mapped[ScanNotes] = mapped_column(Notes)
    cleanset_digest: Mapped[str | None] = mapped_column(DIGEST)
    cleanset_name: Mapped[str | None] = mapped_column(Text)
    policy_digest: Mapped[str | None] = mapped_column(DIGEST)
    state: Mapped[ScanState] = mapped_column(EnumText(ScanState), index=True)
    verdict_id: Mapped[str | None] = mapped_column(ID)
    error: Mapped[str | None] = mapped_column(Text)
    submitted_by: Mapped[str | None] = mapped_column(Text, index=True)
    parent_scan_id: Mapped[str | None] = mapped_column(ForeignKey("scans.id"))
    # When the store took the upload; None in rows of older releases and of children.
    uploaded_at: Mapped[datetime | None] = mapped_column(Utc)
    attempts: Mapped[int]
    lease_token: Mapped[int]
    lease_until: Mapped[datetime | None] = mapped_column(Utc)
    created_at: Mapped[datetime] = mapped_column(Utc, index=True)
    updated_at: Mapped[datetime] = mapped_column(Utc)
    # One first scan per object version, however often its event arrives. Without a version id (an
    # unversioned bucket) the caller distinguishes uploads. Few scans are not done; a list of those
    # must not walk over all others.
    __table_args__ = (
        only(
            "uq_scans_object",
            "bucket",
            "key",
            "version_id",
            where="parent_scan_id IS NULL",
            unique=True,
        ),
        only("ix_scans_unfinished", "created_at", where="state <> 'done' AND state <> 'failed'"),
        only("ix_scans_failed", "created_at", where="state = 'failed'"),
    )


class Nomination(Base):
    """Every notice that an object exists, and its outcome."""

    __tablename__ = "nominations"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    version_id: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(32))
    received_at: Mapped[datetime] = mapped_column(Utc)
    state: Mapped[NominationState] = mapped_column(EnumText(NominationState), index=True)
    reason: Mapped[str] = mapped_column(Text)
    scan_id: Mapped[str | None] = mapped_column(ForeignKey("scans.id"))
    __table_args__ = (Index("ix_nominations_object", "bucket", "key"),)


class Artifact(Base):
    """Immutable bytes with a digest."""

    __tablename__ = "artifacts"
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[ArtifactKind] = mapped_column(EnumText(ArtifactKind))
    parent_digest: Mapped[str | None] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    manifest: Mapped[dict[str, Any] | None] = mapped_column(PlainJson)
    created_at: Mapped[datetime] = mapped_column(Utc)


class EvidenceRecord(Base):
    """The result of one method version on one artifact; append-only."""

    __tablename__ = "evidence"
    key: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    cleanset_digest: Mapped[str] = mapped_column(DIGEST)
    method: Mapped[str] = mapped_column(String(64), index=True)
    version: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))
    body: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    created_at: Mapped[datetime] = mapped_column(Utc)


class LedgerEntry(Base):
    """The verdicts, each chained to the one before by its hash; append-only."""

    __tablename__ = "verdicts"
    # Set by `ledger.append` under a lock: a sequence leaves gaps when a transaction fails, and a
    # gap means a deleted row.
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(ID, unique=True)
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    scan_id: Mapped[str] = mapped_column(ForeignKey("scans.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(EnumText(Verdict))
    envelope: Mapped[dict[str, Any]] = mapped_column(EnvelopeText)
    previous: Mapped[str] = mapped_column(DIGEST)
    hash: Mapped[str] = mapped_column(DIGEST)
    issued_at: Mapped[datetime] = mapped_column(Utc)
    expires_at: Mapped[datetime] = mapped_column(Utc)
    policy_digest: Mapped[str] = mapped_column(DIGEST)
    __table_args__ = (
        Index(None, "expires_at"),
        only("ix_verdicts_held", "seq", where="verdict = 'held'"),
    )


class Review(Base):
    """A person's decision about one verdict; append-only.

    A trigger refuses an approval by the uploader.
    """

    __tablename__ = "reviews"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    verdict_id: Mapped[str] = mapped_column(ForeignKey("verdicts.id"), index=True)
    reviewer: Mapped[str] = mapped_column(Text)
    decision: Mapped[Decided] = mapped_column(EnumText(Decided))
    reason: Mapped[str] = mapped_column(Text)
    new_verdict_id: Mapped[str | None] = mapped_column(ID)
    at: Mapped[datetime] = mapped_column(Utc)


class Principal(Base):
    """A name that tokens are given to; append-only, so that "none exists yet" never comes back."""

    __tablename__ = "principals"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Utc)


class Token(Base):
    """A bearer token of a principal, as the SHA-256 of its secret."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    principal: Mapped[str] = mapped_column(ForeignKey("principals.name"), index=True)
    role: Mapped[Role] = mapped_column(EnumText(Role))
    hash: Mapped[str] = mapped_column(DIGEST)
    created_at: Mapped[datetime] = mapped_column(Utc)
    expires_at: Mapped[datetime] = mapped_column(Utc)
    revoked_at: Mapped[datetime | None] = mapped_column(Utc)
    last_used_at: Mapped[datetime | None] = mapped_column(Utc)


class PrefixOwner(Base):
    """A principal that may upload under a prefix of a bucket, until `removed_at`."""

    __tablename__ = "prefix_owners"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    principal: Mapped[str] = mapped_column(ForeignKey("principals.name"), index=True)
    created_at: Mapped[datetime] = mapped_column(Utc)
    removed_at: Mapped[datetime | None] = mapped_column(Utc)


class Uploader(Base):
    """Who owned an upload's key when it was taken in; append-only.

    A trigger copies the rows of a parent scan to its children and re-scans.
    """

    __tablename__ = "uploaders"
    scan_id: Mapped[str] = mapped_column(ForeignKey("scans.id"), primary_key=True)
    principal: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class ActRecord(Base):
    """Who did what; append-only, and sealed by a row of `ledger_acts` with the same id.

    `role` and `token_id` are empty for a login without a token. A trigger keeps uploaders, and one
    person alone, from waiving a finding.
    """

    __tablename__ = "acts"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(ID, unique=True)
    act: Mapped[Act] = mapped_column(EnumText(Act), index=True)
    principal: Mapped[str] = mapped_column(Text, index=True)
    role: Mapped[str] = mapped_column(String(16))
    authenticated: Mapped[bool]
    token_id: Mapped[str] = mapped_column(ID)
    subject: Mapped[str] = mapped_column(Text, index=True)
    detail: Mapped[str] = mapped_column(Text)
    facts: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    at: Mapped[datetime] = mapped_column(Utc)


class Publication(Base):
    """An artifact given to serving under a name and a version, which is never used twice."""

    __tablename__ = "publications"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("artifacts.digest"), index=True)
    name: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(String(32))
    publisher: Mapped[str] = mapped_column(String(64))
    archive_digest: Mapped[str] = mapped_column(DIGEST)
    receipt: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    envelope: Mapped[dict[str, Any]] = mapped_column(EnvelopeText)
    state: Mapped[PublicationState] = mapped_column(EnumText(PublicationState), index=True)
    at: Mapped[datetime] = mapped_column(Utc)
    withdrawn_at: Mapped[datetime | None] = mapped_column(Utc)
    reason: Mapped[str] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("name", "version"),)


class Revocation(Base):
    """A digest that must never be served again, whatever was signed; append-only."""

    __tablename__ = "revocations"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, index=True)
    reason: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Utc)


class LedgerAct(Base):
    """Signed acts beside the verdicts, chained like them; append-only.

    Revocations, acts about keys and the ledger, and a seal of each row of `acts`.
    """

    __tablename__ = "ledger_acts"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(ID, unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(DIGEST, index=True)
    envelope: Mapped[dict[str, Any]] = mapped_column(EnvelopeText)
    previous: Mapped[str] = mapped_column(DIGEST)
    hash: Mapped[str] = mapped_column(DIGEST)
    at: Mapped[datetime] = mapped_column(Utc)


class CheckpointNote(Base):
    """That a checkpoint was written outside, so that an older file in its place shows."""

    __tablename__ = "checkpoint_notes"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(DIGEST)
    at: Mapped[datetime] = mapped_column(Utc)


class CleanSetRecord(Base):
    """A curated clean set; the latest of a name is the one in use."""

    __tablename__ = "cleansets"
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    name: Mapped[str] = mapped_column(Text, index=True)
    facts: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    added_at: Mapped[datetime] = mapped_column(Utc)


class Outbox(Base):
    """Messages that were committed with the rows they concern; the relay sends them."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    task: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    created_at: Mapped[datetime] = mapped_column(Utc)
    not_before: Mapped[datetime] = mapped_column(Utc)
    sent_at: Mapped[datetime | None] = mapped_column(Utc)
    taken_until: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (
        only("ix_outbox_unsent", "not_before", where="sent_at IS NULL"),
        only("ix_outbox_sent", "sent_at", where="sent_at IS NOT NULL"),
    )


class DeadLetter(Base):
    """Messages that no task could handle."""

    __tablename__ = "dead_letters"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    task: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(PlainJson)
    error: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Utc)


class Alarm(Base):
    """Something that a person should see; at most one open alarm for each kind and subject."""

    __tablename__ = "alarms"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Utc)
    cleared_at: Mapped[datetime | None] = mapped_column(Utc)
    __table_args__ = (
        only("uq_alarms_open", "kind", "subject", where="cleared_at IS NULL", unique=True),
    )


class Method(Base):
    """The methods that this installation knows, and whether they decide."""

    __tablename__ = "methods"
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]
    state: Mapped[MethodState] = mapped_column(EnumText(MethodState))


class Claim(Base):
    """Whose a served name is: one key prefix and one owner, from the first upload on.

    `newest_scan_id` is the newest upload that was ever published under the name, and
    `rolled_back_to` the digest that a rollback put in its place. `publisher_scan_id` and
    `publisher_token` are the lease of the scan that is being published, or that last was.
    """

    __tablename__ = "claims"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    bucket: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    owner: Mapped[str | None] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(Utc)
    newest_scan_id: Mapped[str | None] = mapped_column(ForeignKey("scans.id"))
    rolled_back_to: Mapped[str | None] = mapped_column(DIGEST)
    publisher_scan_id: Mapped[str | None] = mapped_column(ID)
    publisher_token: Mapped[int | None]
    __table_args__ = (UniqueConstraint("bucket", "prefix"),)


class Canary(Base):
    """The results of one worker's detectors on models known to be clean or backdoored."""

    __tablename__ = "canaries"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    worker: Mapped[str] = mapped_column(Text)
    methods: Mapped[str] = mapped_column(DIGEST)
    passed: Mapped[bool]
    trials: Mapped[list[dict[str, Any]]] = mapped_column(PlainJson)
    at: Mapped[datetime] = mapped_column(Utc)
    __table_args__ = (Index(None, "worker", "methods"),)


class Tally(Base):
    """A counter that every worker adds to; `labels` is a JSON list of name and value pairs."""

    __tablename__ = "tallies"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(256), primary_key=True)
    value: Mapped[float] = mapped_column(Float)
