"""Stage 5: publish what the gate approves; the gate reads the signed statement, never the row."""

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import structlog
from sqlalchemy.orm import Session

from guard.attest import gate
from guard.core.contracts import AnySmoke, Prompt, Receipt, ServedForm, Smoke, TextSmoke
from guard.core.errors import IntegrityMismatch, NotServable, Unavailable
from guard.core.modality import Modality
from guard.core.roles import Act
from guard.core.states import SERVABLE_VERDICTS, GateMode, ScanState
from guard.flow import _newest, _turn, _warning, model_keys
from guard.flow._acts import note
from guard.flow._lease import Held
from guard.flow._modality import for_scan
from guard.flow._observed import refused
from guard.flow._seal import settle
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.flow.signed import signed
from guard.publishers import SIGNATURE, carried
from guard.store import alarms, claims, ledger, outbox, publications, scans
from guard.store.rows import LedgerRow, ScanRow
from guard.store.session import reading, transaction

_LOG = structlog.get_logger()
_PAUSE = 0.1  # seconds between two looks at whether a name is free


def request(guard: Guard, scan_id: str, by: Principal | str) -> None:
    """Ask for the artifact of a finished scan to be published.

    Args:
        by: a principal with an operator's token; a name stands for a login without one.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        NotServable: its verdict does not allow that, or a newer upload was published; the message
            says why.
        NameTaken: the name belongs to somebody else.
    """
    with reading(guard.engine) as session:
        permit(guard, session, by, Act.PUBLISH)
        scan = scans.get(session, scan_id)
    view(guard, scan)
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, Act.PUBLISH)
        _turn.check(session, scan, guard.now())
        note(guard, session, who, Act.PUBLISH, scan.canonical_digest or "", f"scan {scan.id}")
        scans.move(session, scan.id, ScanState.PUBLISHING, guard.now())
        outbox.add(session, "publish", {"scan_id": scan.id}, guard.now())
    settle(guard)


def run(guard: Guard, held: Held) -> None:
    """Publish the scan's artifact.

    After this returns, the serving system serves the artifact, or an alarm is raised.
    """
    scan = held.scan()
    if scan.state is not ScanState.PUBLISHING or scan.canonical_digest is None:
        return
    if scan.detail.rescan is not None and _replaced(guard, scan):
        # A renewed verdict must not bring back what a newer model has replaced meanwhile.
        with transaction(guard.engine) as session:
            held.check(session)
            scans.move(session, scan.id, ScanState.DONE, guard.now(), lease=held.lease)
        return
    try:
        version = _begin(guard, held, scan, scan.canonical_digest)
        if (scan := held.scan()).state is not ScanState.PUBLISHING or not scan.canonical_digest:
            return  # a reviewer rejected it while it waited
        approved = _release(guard, scan, scan.canonical_digest, version)
    except _turn.Superseded as error:
        _skip(guard, held, error.sentence)
        return
    except (NotServable, IntegrityMismatch, claims.NameTaken) as error:
        refused("publish", error)
        _refuse(guard, held, scan, error.sentence)
        return
    if scan.detail.smoke is None:
        _refuse(guard, held, scan, "The scan has no smoke samples; scan the model again.")
        return
    smoke = smoke_from(guard.blobs.path(scan.detail.smoke).read_bytes())
    try:
        with guard.blobs.open(scan.canonical_digest) as weights:
            # What is served in place of the weights is made only once the gate lets them through,
            # and the gate decides anew before it signs that file's digest.
            served = guard.publisher.prepare(scan.canonical_digest, weights)
            if served is not None:
                approved = _release(guard, scan, scan.canonical_digest, version, served)
            receipt = guard.publisher.publish(approved, weights, smoke)
            receipt = _signed(guard, receipt, carried(weights, approved.release_envelope))
    except (NotServable, IntegrityMismatch) as error:
        refused("publish", error)
        _refuse(guard, held, scan, error.sentence)
        return
    try:
        with transaction(guard.engine) as session:
            held.check(session)
            claim = _turn.check(session, scan, guard.now())
            _turn.check_held(claim, held.lease)
            _record(guard, session, receipt, approved.release_envelope)
            _turn.published(session, claim, scan)
            _warning.alarm(session, _warning.let_through(session), guard.now())
            detail = replace(scan.detail, not_published=None)
            scans.move(
                session, scan.id, ScanState.DONE, guard.now(), lease=held.lease, detail=detail
            )
    except (_turn.Superseded, claims.NameTaken) as error:
        # This worker's lease had run out, and another one published a newer upload meanwhile.
        if _is_unrecorded(guard, receipt):
            guard.publisher.withdraw(receipt.name, receipt.version)
        _skip(guard, held, error.sentence)


def _release(
    guard: Guard, scan: ScanRow, digest: str, version: str, served: ServedForm | None = None
) -> gate.Approved:
    row, revoked = _verdict_of(guard, scan)
    return gate.approve(
        row.envelope,
        guard.trusted,
        digest=digest,
        now=guard.now(),
        revoked=revoked,
        ledger_row=row,
        name=scan.name,
        version=version,
        signer=guard.signer,
        mode=guard.policy.gate_mode,
        served=served,
    )


def _signed(guard: Guard, receipt: Receipt, files: Mapping[str, bytes]) -> Receipt:
    """The receipt with the model signature in it, which now lies beside the artifact as well."""
    signature = model_keys.sign(guard, receipt.name, receipt.digest, files)
    if signature is None:
        return receipt
    guard.publisher.attach(receipt.name, receipt.version, signature)
    return replace(receipt, detail={**receipt.detail, SIGNATURE: signature.decode()})


def _begin(guard: Guard, held: Held, scan: ScanRow, digest: str) -> str:
    """Wait for this scan's turn to publish under its name, and return the version to publish.

    Between a check and its record nobody else publishes under the name: an older upload that passed
    the check first would otherwise replace a newer one that was recorded meanwhile.

    Raises:
        Superseded, NameTaken: as `_turn.check`.
        Unavailable: another worker did not finish in time.
    """
    until = time.monotonic() + guard.settings.lease_seconds
    while True:
        with transaction(guard.engine) as session:
            held.check(session)
            _turn.check(session, scan, guard.now())
            if claims.turn(session, scan.name, held.lease, guard.now()):
                return publications.version_for(session, scan.name, digest)
        held.alive()
        if time.monotonic() > until:
            raise Unavailable(
                f"Another worker has been publishing under {scan.name!r} for too long; try again.",
                code="name_busy",
            )
        time.sleep(_PAUSE)


def _is_unrecorded(guard: Guard, receipt: Receipt) -> bool:
    """Whether the version is not another model's, which `reconcile` then puts back."""
    with reading(guard.engine) as session:
        there = publications.find(session, receipt.name, receipt.version)
    return there is None or there.digest == receipt.digest


def _replaced(guard: Guard, scan: ScanRow) -> bool:
    """Whether an upload that is not older was published under the name and serves another model."""
    with reading(guard.engine) as session:
        active = {row.digest for row in publications.active(session, scan.name)}
        if not active or scan.canonical_digest in active:
            return False
        claim = claims.find(session, scan.name)
        newest = claim and claim.newest_scan_id and scans.get(session, claim.newest_scan_id)
        upload = _turn.root(session, scan)
        return not newest or _turn.order(upload) <= _turn.order(newest)


def _record(guard: Guard, session: Session, receipt: Receipt, envelope: Mapping[str, Any]) -> None:
    there = publications.find(session, receipt.name, receipt.version)
    if there is not None and there.digest != receipt.digest:
        raise _turn.Superseded(
            f"Version {receipt.version} of {receipt.name!r} is another model's by now."
        )
    if there is not None:
        # A renewed verdict gives another release statement under the same version.
        publications.renew(
            session,
            there.id,
            archive_digest=receipt.archive_digest,
            receipt=asdict(receipt),
            envelope=envelope,
            now=guard.now(),
        )
    else:
        publications.add(
            session,
            publication_id=uuid.uuid4().hex,
            digest=receipt.digest,
            name=receipt.name,
            version=receipt.version,
            publisher=receipt.publisher,
            archive_digest=receipt.archive_digest,
            receipt=asdict(receipt),
            envelope=envelope,
            now=guard.now(),
        )
    # Only the newest version of a name is served; older rows stay, marked as withdrawn.
    for row in publications.active(session, receipt.name):
        if row.version != receipt.version:
            publications.withdraw(
                session, row.id, reason=f"replaced by version {receipt.version}", now=guard.now()
            )


def view(guard: Guard, scan: ScanRow) -> gate.VerdictView:
    """The gate's view of a scan's artifact at this moment.

    Raises:
        NotServable, IntegrityMismatch: as `attest.gate.servable`.
    """
    guard = for_scan(guard, scan)
    row, revoked = _verdict_of(guard, scan)
    return gate.servable(
        row.envelope,
        guard.trusted,
        digest=scan.canonical_digest or "",
        now=guard.now(),
        revoked=revoked,
        mode=guard.policy.gate_mode,
        ledger_row=row,
    )


def _verdict_of(guard: Guard, scan: ScanRow) -> tuple[LedgerRow, frozenset[str]]:
    # First: a row that was cut is a ledger that was changed, and no mistake of the caller's.
    revoked = standing(guard, whole=True).check().revoked
    with reading(guard.engine) as session:
        if scan.verdict_id is None:
            raise NotServable(f"Scan {scan.id} has no verdict yet.")
        row = ledger.get(session, scan.verdict_id)
        newest = _newest.verdict(session, row.artifact_digest, guard.trusted, scan)
    # Another upload of the same bytes may have been rejected since; reconcile would take it out.
    if (
        newest is not None
        and newest.verdict not in SERVABLE_VERDICTS
        and not _warned(guard, newest)
    ):
        raise NotServable(
            f"The newest verdict on {row.artifact_digest[:12]} is {newest.verdict}; only cleared "
            "or purified models are served."
        )
    return row, revoked


def _warned(guard: Guard, row: LedgerRow) -> bool:
    """Whether a verdict blocks nothing, since the gate only warned when it was signed, and does."""
    stated = signed(row.envelope).gate
    return guard.policy.gate_mode is GateMode.WARN and stated is not None and stated.let_through


def _skip(guard: Guard, held: Held, sentence: str) -> None:
    """End a scan whose verdict stands, and whose artifact is not for serving."""
    with transaction(guard.engine) as session:
        held.check(session)
        detail = replace(scans.get(session, held.scan_id).detail, not_published=sentence)
        scans.move(
            session, held.scan_id, ScanState.DONE, guard.now(), lease=held.lease, detail=detail
        )
    _LOG.info("publication_skipped", scan_id=held.scan_id, reason=sentence)


def _refuse(guard: Guard, held: Held, scan: ScanRow, sentence: str) -> None:
    with transaction(guard.engine) as session:
        held.check(session)
        alarms.raise_(
            session, "publish_refused", scan.canonical_digest or scan.id, sentence, guard.now()
        )
        scans.move(
            session, scan.id, ScanState.FAILED, guard.now(), lease=held.lease, error=sentence
        )


def smoke_from(data: bytes) -> AnySmoke:
    """The stored smoke samples; those of images state no kind."""
    value = json.loads(data)
    if value.get("kind") == Modality.GRAPHS:
        return TextSmoke(
            prompts=tuple(
                Prompt(
                    text=one["text"],
                    seed=one["seed"],
                    latents=tuple(tuple(row) for row in one["latents"]),
                    smiles=tuple(one["smiles"]),
                )
                for one in value["requests"]
            )
        )
    return Smoke(
        images=tuple(base64.b64decode(image) for image in value["images"]),
        probabilities=tuple(tuple(row) for row in value["probabilities"]),
    )
