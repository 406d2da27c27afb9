"""Everything a reader may want to know about one scan, from the evidence in hand or from the store."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.attest import dsse
from guard.cleansets import load
from guard.core.errors import GuardError, InputError
from guard.core.evidence import AsrEstimate, CleanSetFacts, Evidence, PurificationFacts
from guard.core.manifest import Manifest
from guard.core.states import Verdict
from guard.flow.context import Guard
from guard.flow.repair import asr_of, facts_from_dict
from guard.reports.report import RecoveredTrigger, Report, methods_of
from guard.store import artifacts, ledger, scans
from guard.store import cleansets as cleanset_rows
from guard.store import evidence as evidence_rows
from guard.store.rows import ScanRow
from guard.store.session import reading

if TYPE_CHECKING:
    from guard.policy import Decision

Pictures = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # uint8 N,C,H,W and their labels


def from_decision(decision: "Decision", *, digest: str, name: str, policy: str, manifest: Manifest,
                  cleanset: CleanSetFacts, evidence: Sequence[Evidence], triggers: Mapping[str, bytes],
                  pictures: Pictures, seconds: float, purification: PurificationFacts | None = None,
                  candidates: Sequence[Mapping[str, Any]] = (),
                  replayed_before: Sequence[AsrEstimate] = (),
                  known_gaps: Mapping[str, Any] | None = None) -> Report:
    """A report on what was just decided, with no store behind it."""
    return Report(
        digest=digest, name=name, verdict=decision.verdict, score=decision.score, target=decision.target,
        asr=decision.asr, asr_upper=decision.asr_upper, calibration=decision.calibration,
        coverage=decision.coverage, known_gaps=known_gaps, methods=methods_of(evidence), seconds=seconds, policy=policy,
        reasons=decision.reasons, manifest=manifest, cleanset=cleanset, evidence=[item.to_dict() for item in evidence],
        triggers=recovered(evidence, triggers, pictures), candidates=candidates, replayed_before=replayed_before,
        **_purified(purification),
    )


def report_for(guard: Guard, scan_id: str) -> Report:
    """The report on a scan of the service.

    Raises:
        InputError: there is no such scan, or it has no verdict yet.
    """
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        if scan.verdict_id is None:
            raise InputError(f"Scan {scan.id} is {scan.state} and has no verdict yet; `guard status --watch` follows.",
                             code="no_verdict")
        row = ledger.get(session, scan.verdict_id)
        found = evidence_rows.for_artifact(session, row.artifact_digest, scan.cleanset_digest)
        facts = cleanset_rows.get(session, scan.cleanset_digest) if scan.cleanset_digest else None
        artifact = artifacts.find(session, row.artifact_digest)
        stored = scan.detail.get("purification")
        parent = evidence_rows.for_artifact(session, stored["parent"], scan.cleanset_digest) if stored else []
    said = dsse.payload(row.envelope)["predicate"]
    manifest = Manifest.from_dict(dict(artifact.manifest)) if artifact is not None and artifact.manifest else None
    asr = said.get("asr")
    return Report(
        digest=row.artifact_digest, name=scan.name, verdict=Verdict(row.verdict),
        # A verdict that needed no score (unvettable, inconclusive) is no sign of innocence.
        score=said["score"] if said.get("score") is not None else 1.0,
        target=said.get("target"), asr=AsrEstimate(**asr) if asr else None, asr_upper=said.get("asr_upper"),
        calibration=said.get("calibration"), coverage=said.get("coverage", ()), known_gaps=said.get("known_gaps"),
        methods=methods_of(found), seconds=(scan.updated_at - scan.created_at).total_seconds(),
        policy=row.policy_digest, reasons=said.get("reasons", ()), manifest=manifest, cleanset=facts,
        evidence=[item.to_dict() for item in found],
        triggers=_stored_triggers(guard, found, facts), candidates=_candidates(scan), replayed_before=asr_of(parent),
        scan_id=scan.id, verdict_id=row.id, issued_at=said.get("issued_at"), expires_at=said.get("expires_at"),
        **_purified(facts_from_dict(stored) if stored else None),
    )


def _purified(facts: PurificationFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    return {"parent": facts.parent, "defense": facts.defense, "defense_version": facts.version,
            "parameters": facts.parameters, "acc_before": facts.acc_before,
            "acc_after": facts.acc_after, "replayed": facts.replayed, "resampled": facts.resampled,
            "relearned": facts.relearned, "woken": facts.woken, "shared": facts.shared, "unproved": facts.unproved}


def _candidates(scan: ScanRow) -> list[dict[str, Any]]:
    """What was tried on a rejected parent, without the bulk of the facts."""
    found = []
    for item in scan.detail.get("candidates", []):
        plain = {key: value for key, value in item.items() if key != "facts"}
        if "facts" in item:
            plain |= {"acc_after": item["facts"]["acc_after"]["overall"], "seconds": item["facts"]["seconds"]}
        found.append(plain)
    return found


def _stored_triggers(guard: Guard, evidence: Sequence[Evidence], facts: CleanSetFacts | None) -> list[RecoveredTrigger]:
    wanted = [f.trigger_digest for item in evidence for f in item.findings if f.trigger_digest]
    if not wanted or facts is None:
        return []
    data = {}
    for digest in wanted:
        try:
            data[digest] = guard.blobs.path(digest).read_bytes()
        except GuardError:
            continue  # a picture that is gone must not hide the verdict; `guard verify` names what is missing
    _, images, labels, split = load(guard.blobs.path(facts.digest).read_bytes(), facts.name)
    return recovered(evidence, data, (images[split == 2], labels[split == 2]))


def recovered(evidence: Sequence[Evidence], data: Mapping[str, bytes], pictures: Pictures) -> list[RecoveredTrigger]:
    """Every stored trigger as pictures, each stamped on one clean image of another class."""
    from guard.ml.trigger_files import looks

    found = []
    for item in evidence:
        for finding in item.findings:
            if finding.trigger_digest is None or finding.trigger_digest not in data:
                continue
            images, labels = pictures
            target = finding.target if isinstance(finding.target, int) else None
            others = [index for index, label in enumerate(labels) if label != target]
            clean = images[others[0]] if others else np.full(images.shape[1:], 127, np.uint8)
            shown = looks(data[finding.trigger_digest], clean)
            found.append(RecoveredTrigger(family=finding.family, target=finding.target, digest=finding.trigger_digest,
                                          mask=shown.mask, pattern=shown.pattern,
                                          picture=shown.stamped if others else None))
    return found
