"""Build the report on one scan of the service from what the store holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guard.cleansets import load, load_pairs
from guard.core.digests import is_digest
from guard.core.errors import GuardError, InputError
from guard.core.evidence import AnyCleanSet, CleanSetFacts, Evidence, PairSetFacts
from guard.core.manifests import manifest_from
from guard.core.plain import from_plain, iso, to_plain
from guard.core.purification import PurificationFacts
from guard.core.sift import SiftReport
from guard.core.verdict import VerdictFacts
from guard.flow import _newest
from guard.flow._aging import root_of
from guard.flow.context import Guard
from guard.flow.signed import signed
from guard.reports.report import RecoveredTrigger, Report, TrainingImage, methods_of
from guard.store import artifacts, ledger, publications, scans
from guard.store import cleansets as cleanset_rows
from guard.store import evidence as evidence_rows
from guard.store.rows import LedgerRow, ScanRow
from guard.store.session import reading
from guard.vetting.accused import shown
from guard.vetting.case import read_as_grey
from guard.vetting.examine import open_model
from guard.vetting.molecules_shown import with_molecules
from guard.vetting.parent_comparison import asr_of
from guard.vetting.report import demonstrated, recovered

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def report_for(guard: Guard, scan_id: str) -> Report:
    """The report on a scan of the service.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    known = _known(guard, scan_id)
    report, cleanset = known.report, known.report.cleanset
    report = replace(
        report,
        triggers=_stored_triggers(guard, known.found, cleanset, known.stored),
        sift=_stored_sift(guard, report.facts),
        training_images=_stored_images(guard, report.facts, known.found),
    )
    repair = report.purification
    if isinstance(cleanset, PairSetFacts):
        evidence = known.found if repair is None else known.parent
        return _stored_molecules(guard, report, evidence, cleanset)
    if repair is None or not isinstance(cleanset, CleanSetFacts):
        return report
    return _stored_demonstrations(guard, report, repair, known.parent, cleanset)


def facts_for(guard: Guard, scan_id: str) -> Report:
    """The same without what is read from blobs: images, molecules and the sift's report.

    It reads the database alone. Raises as `report_for`.
    """
    return _known(guard, scan_id).report


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The report as far as the database goes, and what the rest is made from."""

    report: Report
    found: list[Evidence]
    parent: list[Evidence]
    stored: Mapping[str, Any] | None


def _known(guard: Guard, scan_id: str) -> _Known:
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        if scan.verdict_id is None:
            raise InputError(
                f"Scan {scan.id} is {scan.state} and has no verdict yet; `guard status --watch` "
                "follows.",
                code="no_verdict",
            )
        row = ledger.get(session, scan.verdict_id)
        if row.scan_id != scan.id:  # a re-scan gave the verdict in force
            scan = scans.get(session, row.scan_id)
        found = evidence_rows.for_artifact(session, row.artifact_digest, scan.cleanset_digest)
        cleanset = (
            cleanset_rows.get(session, scan.cleanset_digest) if scan.cleanset_digest else None
        )
        artifact = artifacts.find(session, row.artifact_digest)
        repair, parent = scan.detail.purification, list[Evidence]()
        if repair is not None:
            parent = evidence_rows.for_artifact(session, repair.parent, scan.cleanset_digest)
        tried = [] if scan.detail.retraining is not None else _candidates(session, scan)
    view = signed(row.envelope)
    facts = view.facts.natural_apart()
    stored = artifact.manifest if artifact is not None else None
    report = Report(
        digest=row.artifact_digest,
        name=scan.name,
        facts=facts,
        methods=methods_of(found),
        seconds=(scan.updated_at - scan.created_at).total_seconds(),
        policy=row.policy_digest,
        manifest=manifest_from(dict(stored)) if stored else None,
        cleanset=cleanset,
        evidence=[item.to_dict() for item in found],
        purification=repair,
        retraining=scan.detail.retraining,
        candidates=tried,
        replayed_before=asr_of(parent),
        scan_id=scan.id,
        verdict_id=row.id,
        issued_at=iso(view.issued_at),
        expires_at=iso(view.expires_at),
        expired=view.expires_at <= guard.now(),
    )
    return _Known(report=report, found=found, parent=parent, stored=stored)


def report_on(guard: Guard, wanted: str) -> Report:
    """The report on the verdict in force about a model.

    Args:
        wanted: the name it is served under or was uploaded as, a digest, or a scan.

    Raises:
        InputError: nothing of that kind is known, or it has no verdict yet.
    """
    row, scan_id = _found(guard, wanted)
    return report_for(guard, row.scan_id if row is not None else scan_id)


def row_on(guard: Guard, wanted: str) -> LedgerRow:
    """The verdict in force about a model, as the ledger holds it; as `report_on`."""
    row, scan_id = _found(guard, wanted)
    if row is None:
        raise InputError(f"Scan {scan_id} has no verdict yet.", code="no_verdict")
    return row


def _found(guard: Guard, wanted: str) -> tuple[LedgerRow | None, str]:
    """The row of the verdict that counts, and the scan where there is none."""
    with reading(guard.engine) as session:
        served = next(iter(publications.active(session, wanted)), None)
        if served is not None:
            root = root_of(session, served)
            return _newest.verdict(session, served.digest, guard.trusted, root), wanted
        scan = _scan_of(session, wanted)
        digest = scan.canonical_digest
        if digest is None:
            return None, scan.id
        return _newest.verdict(session, digest, guard.trusted, scan), scan.id


def _scan_of(session: "Session", wanted: str) -> ScanRow:
    found = scans.latest_of_name(session, wanted)
    if found is None and is_digest(wanted):
        found = next(iter(scans.for_digest(session, wanted)), None)
    return found or scans.get(session, wanted)


def _stored_sift(guard: Guard, facts: VerdictFacts) -> SiftReport | None:
    """The report of the sift that the verdict names; None where it is missing."""
    if facts.training_set is None or facts.training_set.report is None:
        return None
    try:
        data = guard.blobs.path(facts.training_set.report).read_bytes()
    except GuardError:
        return None
    return from_plain(SiftReport, json.loads(data))


def _stored_images(
    guard: Guard, facts: VerdictFacts, found: Sequence[Evidence]
) -> list[TrainingImage]:
    """Images that the sift which the verdict names has accused; none where they are missing."""
    report = None if facts.training_set is None else facts.training_set.report
    digests = [one.blobs.get("accused") for one in found if one.blobs.get("report") == report]
    if report is None or not digests or digests[0] is None:
        return []
    try:
        return shown(guard.blobs.path(digests[0]).read_bytes())
    except GuardError:
        return []


def _candidates(session: "Session", scan: ScanRow) -> list[dict[str, Any]]:
    """The candidates of a rejected parent's tournament, without the bulk of their facts.

    The report on a candidate lists its rivals too.
    """
    if scan.detail.rescan is not None and not scan.detail.candidates:
        scan = scans.get(session, scan.detail.rescan.of)
    if scan.parent_scan_id is not None and scan.detail.rescan is None:
        scan = scans.get(session, scan.parent_scan_id)
    found = []
    judged = _judged(session, [one.child for one in scan.detail.candidates if one.child])
    for attempt in scan.detail.candidates:
        plain = to_plain(replace(attempt, facts=None))
        if attempt.facts is not None:
            plain |= {
                "acc_after": attempt.facts.acc_after.overall,
                "seconds": attempt.facts.seconds,
            }
        plain |= judged.get(attempt.child or "", {})
        found.append(plain)
    return found


def _judged(session: "Session", children: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The verdict in force on each candidate; none where it still waits or its scan failed."""
    known = scans.by_ids(session, children)
    rows = ledger.by_ids(session, [one.verdict_id for one in known.values() if one.verdict_id])
    return {
        scan.id: {
            "verdict": str(row.verdict),
            "reasons": list(signed(row.envelope).facts.reasons),
        }
        for scan in known.values()
        if (row := rows.get(scan.verdict_id or "")) is not None
    }


def _stored_triggers(
    guard: Guard,
    evidence: Sequence[Evidence],
    facts: AnyCleanSet | None,
    manifest: Mapping[str, Any] | None,
) -> list[RecoveredTrigger]:
    data = _trigger_bytes(guard, evidence)
    if not data or not isinstance(facts, CleanSetFacts):
        return []
    _, images, labels, split = load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
    if read_as_grey(manifest, facts):
        images = images[:, :1]
    return recovered(evidence, data, (images[split == 2], labels[split == 2]))


def _trigger_bytes(guard: Guard, evidence: Sequence[Evidence]) -> dict[str, bytes]:
    data = {}
    for digest in (
        f.trigger_digest for item in evidence for f in item.findings if f.trigger_digest
    ):
        try:
            data[digest] = guard.blobs.path(digest).read_bytes()
        except GuardError:
            # A missing trigger must not hide the verdict; `guard verify` names what is missing.
            continue
    return data


def _stored_molecules(
    guard: Guard, report: Report, evidence: Sequence[Evidence], facts: PairSetFacts
) -> Report:
    def opened() -> tuple[Any, Any, Any]:
        curated = load_pairs(guard.blobs.path(facts.digest).read_bytes(), facts.name)
        parent = report.purification.parent if report.purification is not None else None
        # On the CPU: these are a few molecules, and the report's reader may have no other device.
        uploaded, own = (
            None if digest is None else open_model(guard.blobs.path(digest), device="cpu")
            for digest in (parent, report.digest)
        )
        return uploaded, own, curated

    return with_molecules(report, opened, evidence, _trigger_bytes(guard, evidence))


def _stored_demonstrations(
    guard: Guard,
    report: Report,
    repair: PurificationFacts,
    evidence: Sequence[Evidence],
    facts: CleanSetFacts,
) -> Report:
    from guard.ml.cleanset import CuratedSet

    try:
        curated = CuratedSet.from_arrays(
            *load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
        )
        # On the CPU: these are a few images, and the report's reader may have no other device.
        parent, child = (
            open_model(guard.blobs.path(digest), device="cpu")
            for digest in (repair.parent, report.digest)
        )
        seen = curated.seen_by(parent.manifest.input_size[0])
        return demonstrated(
            report, parent, child, evidence, _trigger_bytes(guard, evidence), seen.holdout
        )
    except GuardError:
        return report  # a missing blob must not hide the verdict
