"""Stage 3: read the evidence, ask the policy, sign the answer."""

from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict
from guard.flow._handover import OUTCOME
from guard.flow._lease import Held
from guard.flow._verdict import conclude
from guard.flow.context import Guard
from guard.policy import Case, decide, known_gaps
from guard.store import artifacts, cleansets, evidence
from guard.store.rows import ScanRow
from guard.store.session import reading
from guard.vetting.case import make_case
from guard.vetting.repair import facts_from_dict, proved


def run(guard: Guard, held: Held) -> None:
    """Decide the scan and go on to purify, publish or rest."""
    scan = held.scan()
    if scan.state is not ScanState.DECIDING:
        return
    subject = scan.canonical_digest or scan.upload_digest or ""
    outcome = scan.detail.get(OUTCOME)
    if outcome is not None:
        conclude(
            guard,
            held,
            Verdict(outcome["verdict"]),
            subject=subject,
            reasons=outcome["reasons"],
            then=outcome["then"],
        )
        return
    case = case_of(guard, scan)
    decision = decide(guard.policy, case)
    then = ""
    if decision.verdict in SERVABLE_VERDICTS:
        then = "publish" if guard.settings.auto_publish else ""
    elif decision.purify:
        then = "purify"
    conclude(
        guard,
        held,
        decision.verdict,
        subject=subject,
        reasons=decision.reasons,
        then=then,
        score=decision.score,
        target=decision.target,
        asr=decision.asr,
        asr_upper=decision.asr_upper,
        calibration=decision.calibration,
        coverage=decision.coverage,
        known_gaps=known_gaps(guard.policy, case.versions),
        evidence=[item.key for item in case.evidence],
        lifetime=decision.expires_after_seconds,
        parent=case.purification.parent if case.purification else None,
        purification=proved(case.purification) if case.purification else None,
    )


def case_of(guard: Guard, scan: ScanRow) -> Case:
    """Everything stored that the policy may read about a scan's artifact."""
    digest, cleanset = scan.canonical_digest or "", scan.cleanset_digest or ""
    with reading(guard.engine) as session:
        found = tuple(evidence.for_artifact(session, digest, cleanset))
        facts = cleansets.get(session, cleanset)
        artifact = artifacts.find(session, digest)
    purification = scan.detail.get("purification")
    manifest = artifact.manifest if artifact is not None else None
    return make_case(
        guard.policy,
        digest,
        facts,
        found,
        facts_from_dict(purification) if purification else None,
        architecture=str(manifest["architecture"]) if manifest else None,
    )
