"""Intake on the worker: pin one object version, stream it once into a blob, record it.

(1) Ask S3 for the facts. (2) Refuse what must not be taken in, before a byte is read. (3) Find the
`config.json` beside the object, or wait for it a while. (4) Stream the object into a blob and hash
it. (5) Commit artifact, scan and the next message together. If the worker is killed anywhere, a
second run has the same result: before (5) only a blob is written, which is known by its digest. If
the bytes change or vanish while they are read, the nomination is refused and no verdict is given:
the new upload has an event of its own, and the sweep finds it if that event is lost.
"""

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from guard.core.errors import ArtifactRejected, InputError
from guard.core.notes import ScanNotes
from guard.events import Nomination
from guard.flow import _fair_share, _manifests, _object_keys, _shards
from guard.flow._intake_settings import IntakeSettings
from guard.flow._observed import intake_of, refused
from guard.flow._served_name import prefix_of, served_name
from guard.flow._upload_pin import is_still, pin_of
from guard.flow.nominate import nominate
from guard.store import (
    alarms,
    artifacts,
    claims,
    intake,
    nominations,
    outbox,
    projects,
    scans,
    uploaders,
)
from guard.store.rows import ArtifactKind, NominationRow, NominationState
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from guard.blobs import Blobs
    from guard.events.bucket import Bucket, ObjectFacts
    from guard.flow.context import Guard

__all__ = ["IntakeSettings", "Received", "nominate", "receive", "receive_nomination"]

_LOG = structlog.get_logger()
TAKEN = "name_taken"  # the alarm
MANIFEST_PAUSE_SECONDS = 2.0
#: A store that is only eventually consistent may not know yet what it sent an event about.
GONE_PATIENCE_SECONDS = 120.0
MAX_SIBLINGS = 100  # weight files that one config.json nominates


@dataclass(frozen=True)
class Received:
    """What became of a nomination; `new` where a later outbox message will retry it."""

    nomination_id: str
    state: NominationState
    scan_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Intake:
    """The resources that every step uses."""

    engine: "Engine"
    blobs: "Blobs"
    bucket: "Bucket"
    limits: IntakeSettings
    now: Callable[[], datetime]


def receive_nomination(guard: "Guard", nomination_id: str) -> Received:
    """Run `receive` with the parts of a Guard."""
    with intake_of(guard, nomination_id):
        return receive(
            nomination_id,
            engine=guard.engine,
            blobs=guard.blobs,
            bucket=guard.make_bucket,
            limits=guard.settings,
            now=guard.now,
        )


def receive(
    nomination_id: str,
    *,
    engine: "Engine",
    blobs: "Blobs",
    bucket: "Callable[[str], Bucket]",
    limits: IntakeSettings,
    now: Callable[[], datetime],
) -> Received:
    """Take in a nominated object.

    However often and in whatever order this runs, each object version gets one scan.

    Args:
        bucket: returns the bucket of a given name.

    Raises:
        InputError: there is no such nomination.
        Unavailable: S3, the blob store or the database did not answer; the nomination stays new.
    """
    with reading(engine) as session:
        row = nominations.get(session, nomination_id)
    if row.state is not NominationState.NEW:
        return Received(row.id, row.state, row.scan_id, row.reason)
    step = _Intake(engine, blobs, bucket(row.bucket), limits, now)
    try:
        done = _take(step, row)
    except claims.NameTaken as error:
        refused("receive", error)
        done = _settle(step, row, NominationState.REFUSED, reason=error.sentence, alarm=TAKEN)
    except (ArtifactRejected, InputError) as error:
        again = error.code == "object_gone" and _ask_again(step, row)
        if not again:
            refused("receive", error)
        done = again or _settle(step, row, NominationState.REFUSED, reason=error.sentence)
    _LOG.info(
        "nomination_received",
        nomination_id=row.id,
        state=str(done.state),
        scan_id=done.scan_id,
        reason=done.reason,
    )
    return done


def _take(step: _Intake, row: NominationRow) -> Received:
    # (1) The event only nominates; from here on S3's own facts count.
    facts = _facts(step.bucket, row)
    # (2) Limits are checked before anything is read.
    _refuse(facts, step.limits)
    if _object_keys.is_manifest(row.key):
        return _nominate_beside(step, row)
    if (index := _shards.index_of(step.bucket, row.key)) is not None:
        return _nominate_index(step, row, index)
    parts = _shards.parts_of(step.bucket, facts, step.limits.max_upload_bytes)
    name = served_name(
        row.bucket,
        row.key,
        template=step.limits.served_name,
        strip=step.limits.served_name_strip,
    )
    # (3) A scan that had a manifest is all there is to do for this version.
    with reading(step.engine) as session:
        last = intake.last_uploads(session, facts.bucket, [facts.key])
        own = _shards.pin_of_all(pin_of(facts, last), parts)
        there = intake.scans_of_upload(session, facts.bucket, facts.key, own)
    whole = [scan for scan in there if scan.manifest is not None]
    found = None if whole else _manifests.beside(step.bucket, row.key)
    if there and found is None:
        return _settle(step, row, NominationState.ACCEPTED, scan_id=(whole or there)[0].id)
    if (found is None or not found.whole or _shards.comes_in_parts(row.key)) and (
        (step.now() - row.received_at).total_seconds() < step.limits.manifest_grace_seconds
    ):
        return _wait(step, row, MANIFEST_PAUSE_SECONDS, "Waiting for what belongs beside it.")
    manifest, manifest_pin = (found.text, found.pin) if found else (None, "")
    # The scan without a manifest runs to its own end; the same weights with a manifest are a
    # separate scan.
    pin = f"{own}{intake.LATE_MANIFEST}{manifest_pin}" if there else own
    size = sum(part.size for part in parts)
    if (waits := _why_wait(step, row, name, size)) is not None:
        return _wait(step, row, *waits)
    # (4) The bytes cross the network once, are hashed on the way and are never all in memory.
    digest, size = step.blobs.put(_shards.stream(step.bucket, parts))
    # (5) One commit.
    uploaded_at = _shards.newest(step.bucket, parts)
    return _commit(step, row, facts, _Scan(name, pin, digest, size, manifest, uploaded_at))


def _why_wait(step: _Intake, row: NominationRow, name: str, size: int) -> tuple[float, str] | None:
    """Refuse before the bytes are read what step (5) would refuse; how long to wait, and why."""
    prefix = prefix_of(row.key)
    with reading(step.engine) as session:
        there = claims.of_prefix(session, row.bucket, prefix) or claims.find(session, name)
        owners = uploaders.owners_of(session, row.bucket, row.key)
        waits = _fair_share.why_wait(session, row, owners, size, step.limits, step.now())
    if there is not None:
        claims.allowed(there, row.bucket, prefix, _owner(owners))
    return waits


def _facts(bucket: "Bucket", row: NominationRow) -> "ObjectFacts":
    # A sweep of an unversioned bucket nominates by ETag, since there is no version id.
    by_etag = row.version_id is not None and row.version_id.startswith("etag:")
    facts = bucket.head(row.key, None if by_etag else row.version_id)
    if by_etag and not is_still(facts, row.version_id or ""):
        sentence = "The object was replaced; the new upload is examined separately."
        raise ArtifactRejected(sentence, code="object_replaced")
    return facts


def may_be_taken(facts: "ObjectFacts", limits: IntakeSettings) -> bool:
    """Whether the rules that need no byte of the object let it in as they are now."""
    try:
        _refuse(facts, limits)
        served_name(
            facts.bucket, facts.key, template=limits.served_name, strip=limits.served_name_strip
        )
    except (ArtifactRejected, InputError):
        return False
    return not _object_keys.unusable(facts.bucket, facts.key, facts.version_id)


def _ask_again(step: _Intake, row: NominationRow) -> Received | None:
    """Look for an object that is not there: under its unencoded key, then later, twice as late."""
    plain = row.key.replace(" ", "+")
    if row.source == "s3" and plain != row.key and _is_there(step.bucket, plain, row.version_id):
        # S3 writes a space as a plus sign; some stores send the key as it is.
        wanted = Nomination(row.bucket, plain, row.version_id, row.source)
        nominate(step.engine, [wanted], step.now(), buckets=(row.bucket,))
        reason = "The event's key was not URL-encoded; the object with plus signs was nominated."
        return _settle(step, row, NominationState.IGNORED, reason=reason)
    age = (step.now() - row.received_at).total_seconds()
    if age >= GONE_PATIENCE_SECONDS:
        return None
    return _wait(step, row, max(age, MANIFEST_PAUSE_SECONDS), "The store does not have it yet.")


def _is_there(bucket: "Bucket", key: str, version_id: str | None) -> bool:
    try:
        bucket.head(key, version_id)
    except (ArtifactRejected, InputError):
        return False
    return True


def _refuse(facts: "ObjectFacts", limits: IntakeSettings) -> None:
    if facts.version_id is None and not limits.allow_unversioned:
        raise InputError(
            "The bucket keeps no versions, so the object could be replaced after it was vetted; "
            "turn versioning on, or set GUARD_ALLOW_UNVERSIONED.",
            code="unversioned",
        )
    if facts.size == 0:
        raise ArtifactRejected("The object is empty; upload the model again.", code="object_empty")
    if facts.size > limits.max_upload_bytes:
        raise ArtifactRejected(
            f"The object has {facts.size} bytes, the limit is {limits.max_upload_bytes} "
            "(GUARD_MAX_UPLOAD_BYTES).",
            code="object_too_large",
        )


@dataclass(frozen=True)
class _Scan:
    name: str
    pin: str
    digest: str
    size: int
    manifest: str | None
    uploaded_at: datetime | None


def _owner(owners: Collection[str]) -> str | None:
    """All owners of a key as one text; None where no prefix covers it."""
    return ", ".join(sorted(owners)) or None


def _commit(step: _Intake, row: NominationRow, facts: "ObjectFacts", scan: _Scan) -> Received:
    now = step.now()
    with transaction(step.engine) as session:
        new = uuid.uuid4().hex
        # Whatever the upload or its event claims; nobody where no prefix covers the key.
        owners = uploaders.owners_of(session, facts.bucket, facts.key)
        claim = claims.take(
            session,
            name=scan.name,
            bucket=facts.bucket,
            prefix=prefix_of(facts.key),
            owner=_owner(owners),
            now=now,
        )
        artifacts.put(
            session, digest=scan.digest, size=scan.size, kind=ArtifactKind.UPLOAD, now=now
        )
        made = scans.insert(
            session,
            scan_id=new,
            bucket=facts.bucket,
            key=facts.key,
            version_id=scan.pin,
            name=claim.name,
            now=now,
            upload_digest=scan.digest,
            manifest=scan.manifest,
            submitted_by=_owner(owners),
            uploaded_at=scan.uploaded_at,
            detail=ScanNotes(trace=row.id),
        )
        if made.id != new:
            # Another worker was faster. Look again now that its scan exists: it may have seen no
            # manifest.
            outbox.add(session, "receive", {"nomination_id": row.id}, now)
            return Received(row.id, NominationState.NEW)
        uploaders.record(session, new, uploaders.may_upload(session, facts.bucket, facts.key))
        if (project := projects.of_key(session, facts.bucket, facts.key)) is not None:
            projects.record_upload(session, project.name, new, scan.size, now)
        outbox.add(session, "inspect", {"scan_id": new}, now)
        nominations.settle(session, row.id, NominationState.ACCEPTED, scan_id=new)
    return Received(row.id, NominationState.ACCEPTED, new)


def _nominate_beside(step: _Intake, row: NominationRow) -> Received:
    """Nominate the weights beside a `config.json` that have no scan with a manifest yet."""
    folder = _object_keys.folder(row.key)
    wanted = []
    for facts in step.bucket.latest(folder):
        own = (
            _object_keys.folder(facts.key) == folder
            and facts.size > 0
            and not _object_keys.is_manifest(facts.key)
        )
        if (
            not own
            or _object_keys.not_a_model(facts.key)
            or _object_keys.unusable(facts.bucket, facts.key, facts.version_id)
        ):
            continue
        with reading(step.engine) as session:
            pin = pin_of(facts, intake.last_uploads(session, facts.bucket, [facts.key]))
            there = intake.scans_of_upload(session, facts.bucket, facts.key, pin)
        if not any(scan.manifest is not None for scan in there):
            wanted.append(Nomination(facts.bucket, facts.key, pin, "manifest"))
        if len(wanted) == MAX_SIBLINGS:
            break
    nominate(step.engine, wanted, step.now(), buckets=(row.bucket,))
    return _settle(
        step,
        row,
        NominationState.ACCEPTED,
        reason=f"This is a manifest; {len(wanted)} objects beside it were nominated.",
    )


def _nominate_index(step: _Intake, row: NominationRow, index: "ObjectFacts") -> Received:
    """Nominate the index of a shard, with which it is examined."""
    wanted = Nomination(index.bucket, index.key, index.pin, "shard")
    nominate(step.engine, [wanted], step.now(), buckets=(row.bucket,))
    return _settle(
        step,
        row,
        NominationState.ACCEPTED,
        reason="A shard; its index was nominated, with which it is examined.",
    )


def _wait(step: _Intake, row: NominationRow, seconds: float, reason: str) -> Received:
    with transaction(step.engine) as session:
        again = {"nomination_id": row.id}
        outbox.add(session, "receive", again, step.now(), delay_seconds=seconds)
        nominations.settle(session, row.id, NominationState.NEW, reason=reason)
    return Received(row.id, NominationState.NEW, reason=reason)


def _settle(
    step: _Intake,
    row: NominationRow,
    state: NominationState,
    *,
    reason: str = "",
    scan_id: str | None = None,
    alarm: str = "",
) -> Received:
    with transaction(step.engine) as session:
        if alarm:
            # One for each folder, however often it is uploaded to.
            subject = f"s3://{row.bucket}/{prefix_of(row.key)}"
            alarms.raise_(session, alarm, subject, reason, step.now())
        nominations.settle(session, row.id, state, reason=reason, scan_id=scan_id)
    return Received(row.id, state, scan_id, reason)
