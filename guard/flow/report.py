"""Everything a reader may want to know about one scan of the service, read from the store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guard.attest import dsse
from guard.cleansets import load
from guard.core.errors import GuardError, InputError
from guard.core.evidence import AsrEstimate, CleanSetFacts, Evidence
from guard.core.manifest import Manifest
from guard.core.states import Verdict
from guard.flow.context import Guard
from guard.reports.report import RecoveredTrigger, Report, methods_of
from guard.store import artifacts, ledger, scans
from guard.store import cleansets as cleanset_rows
from guard.store import evidence as evidence_rows
from guard.store.rows import ScanRow
from guard.store.session import reading
from guard.vetting.examine import open_model
from guard.vetting.repair import asr_of, facts_from_dict
from guard.vetting.report import demonstrated, purified_fields, recovered

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def report_for(guard: Guard, scan_id: str) -> Report:
    """The report on a scan of the service.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        if scan.verdict_id is None:
            raise InputError(
                f"Scan {scan.id} is {scan.state} and has no verdict yet; `guard status --watch` "
                "follows.",
                code="no_verdict",
            )
        row = ledger.get(session, scan.verdict_id)
        found = evidence_rows.for_artifact(session, row.artifact_digest, scan.cleanset_digest)
        facts = cleanset_rows.get(session, scan.cleanset_digest) if scan.cleanset_digest else None
        artifact = artifacts.find(session, row.artifact_digest)
        stored = scan.detail.get("purification")
        parent = (
            evidence_rows.for_artifact(session, stored["parent"], scan.cleanset_digest)
            if stored
            else []
        )
        tried = _candidates(session, scan)
    said = dsse.payload(row.envelope)["predicate"]
    manifest = (
        Manifest.from_dict(dict(artifact.manifest))
        if artifact is not None and artifact.manifest
        else None
    )
    asr = said.get("asr")
    report = Report(
        digest=row.artifact_digest,
        name=scan.name,
        verdict=Verdict(row.verdict),
        # A verdict that needed no score (unvettable, inconclusive) is no sign of innocence.
        score=said["score"] if said.get("score") is not None else 1.0,
        target=said.get("target"),
        asr=AsrEstimate(**asr) if asr else None,
        asr_upper=said.get("asr_upper"),
        calibration=said.get("calibration"),
        coverage=said.get("coverage", ()),
        known_gaps=said.get("known_gaps"),
        methods=methods_of(found),
        seconds=(scan.updated_at - scan.created_at).total_seconds(),
        policy=row.policy_digest,
        reasons=said.get("reasons", ()),
        manifest=manifest,
        cleanset=facts,
        evidence=[item.to_dict() for item in found],
        triggers=_stored_triggers(guard, found, facts),
        candidates=tried,
        replayed_before=asr_of(parent),
        scan_id=scan.id,
        verdict_id=row.id,
        issued_at=said.get("issued_at"),
        expires_at=said.get("expires_at"),
        **purified_fields(facts_from_dict(stored) if stored else None),
    )
    return (
        report
        if not stored or facts is None
        else _stored_demonstrations(guard, report, parent, facts)
    )


def _candidates(session: "Session", scan: ScanRow) -> list[dict[str, Any]]:
    """What was tried on a rejected parent, without the bulk of the facts.

    A candidate's own page shows its rivals.
    """
    if scan.parent_scan_id is not None:
        scan = scans.get(session, scan.parent_scan_id)
    found = []
    for item in scan.detail.get("candidates", []):
        plain = {key: value for key, value in item.items() if key != "facts"}
        if "facts" in item:
            plain |= {
                "acc_after": item["facts"]["acc_after"]["overall"],
                "seconds": item["facts"]["seconds"],
            }
        if "child" in item:
            plain |= _judged(session, item["child"])
        found.append(plain)
    return found


def _judged(session: "Session", scan_id: str) -> dict[str, Any]:
    """The verdict in force on a candidate; nothing where it waits for one, or its scan failed."""
    verdict_id = scans.get(session, scan_id).verdict_id
    if verdict_id is None:
        return {}
    row = ledger.get(session, verdict_id)
    return {
        "verdict": str(row.verdict),
        "reasons": list(dsse.payload(row.envelope)["predicate"].get("reasons", ())),
    }


def _stored_triggers(
    guard: Guard, evidence: Sequence[Evidence], facts: CleanSetFacts | None
) -> list[RecoveredTrigger]:
    data = _trigger_bytes(guard, evidence)
    if not data or facts is None:
        return []
    _, images, labels, split = load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
    return recovered(evidence, data, (images[split == 2], labels[split == 2]))


def _trigger_bytes(guard: Guard, evidence: Sequence[Evidence]) -> dict[str, bytes]:
    data = {}
    for digest in (
        f.trigger_digest for item in evidence for f in item.findings if f.trigger_digest
    ):
        try:
            data[digest] = guard.blobs.path(digest).read_bytes()
        except GuardError:
            # A picture that is gone must not hide the verdict; `guard verify` names what is missing
            continue
    return data


def _stored_demonstrations(
    guard: Guard, report: Report, evidence: Sequence[Evidence], facts: CleanSetFacts
) -> Report:
    from guard.ml.cleanset import CuratedSet

    try:
        curated = CuratedSet.from_arrays(
            *load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
        )
        # On the CPU: a few pictures, and whoever reads a report may have no other device.
        parent, child = (
            open_model(guard.blobs.path(digest or ""), device="cpu")
            for digest in (report.parent, report.digest)
        )
        return demonstrated(
            report, parent, child, evidence, _trigger_bytes(guard, evidence), curated.holdout
        )
    except GuardError:
        return report  # as above
