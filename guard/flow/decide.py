"""Stage 3: read the evidence, apply the policy, sign the verdict."""

from collections.abc import Mapping
from typing import Any

from guard.core.sift import METHOD
from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow import _renewal, _reuse, _waivers
from guard.flow._lease import Held
from guard.flow._near_uploads import hold_if_near
from guard.flow._observed import repair
from guard.flow._verdict import Terms, conclude
from guard.flow._warning import lets_through
from guard.flow.context import Guard
from guard.policy import Case
from guard.store import artifacts, cleansets, evidence
from guard.store.rows import ScanRow
from guard.store.session import reading
from guard.vetting.case import assumed_in, judge, make_case, read_as_grey


def run(guard: Guard, held: Held) -> None:
    """Decide the scan, then send it on to purification or publication, or end it."""
    scan = held.scan()
    if scan.state is not ScanState.DECIDING:
        return
    subject = scan.canonical_digest or scan.upload_digest or ""
    if (outcome := scan.detail.outcome) is not None:
        facts = VerdictFacts(verdict=outcome.verdict, reasons=outcome.reasons)
        _end(guard, held, scan, subject, facts, Terms(then=outcome.then))
        return
    if guard.lacking:
        facts = VerdictFacts(
            verdict=Verdict.INCONCLUSIVE,
            reasons=(guard.lacking,),
            modality=guard.policy.modality,
        )
        _end(guard, held, scan, subject, facts, Terms())
        return
    if scan.detail.reuses is not None:
        found = _reuse.standing(guard, scan, case_of)
        _reuse.conclude(guard, held, scan, found)
        return
    case = case_of(guard, scan) if scan.cleanset_digest else None
    if _renewal.unseen(scan) and not (case and _renewal.examined(guard, scan, case)):
        _renewal.look_first(guard, held, scan)
        return
    decision = hold_if_near(guard, scan, judge(guard.policy, case or case_of(guard, scan)))
    then = ""
    if scan.detail.retraining is not None and scan.detail.rescan is None:
        pass  # a person publishes it, or nobody: it was trained by request, and nobody uploaded it
    elif decision.verdict in SERVABLE_VERDICTS:
        then = "publish" if guard.settings.auto_publish else ""
    elif decision.purify:
        then = "purify"  # where no copy passes, the tournament's end lets the upload through
    elif lets_through(guard, scan, decision.verdict):
        then = "publish"
    terms = Terms(then=then, lifetime=decision.expires_after_seconds, blind=decision.blind)
    _end(guard, held, scan, subject, decision.facts, terms)


def _end(
    guard: Guard, held: Held, scan: ScanRow, subject: str, facts: VerdictFacts, terms: Terms
) -> None:
    if scan.detail.rescan is not None:
        _renewal.conclude(guard, held, scan, facts, terms)
        return
    conclude(guard, held, subject, facts, terms)
    if scan.detail.purification is not None and facts.verdict is Verdict.PURIFIED:
        repair(scan.detail.purification.defense, "accepted")


def case_of(guard: Guard, scan: ScanRow, methods: Mapping[str, Any] | None = None) -> Case:
    """All stored facts about a scan's artifact that the policy may read.

    `methods` is as in `guard.vetting.case.make_case`.
    """
    digest, cleanset = scan.canonical_digest or "", scan.cleanset_digest or ""
    with reading(guard.engine) as session:
        found = tuple(evidence.for_artifact(session, digest, cleanset))
        facts = cleansets.get(session, cleanset)
        artifact = artifacts.find(session, digest)
        repair = scan.detail.purification
        parent = repair and evidence.for_artifact(session, repair.parent, cleanset)
    manifest = artifact.manifest if artifact is not None else None
    return make_case(
        guard.policy,
        digest,
        facts,
        found,
        repair,
        architecture=str(manifest["architecture"]) if manifest else None,
        methods=methods,
        waivers=_waivers.counting(guard, scan),
        # Nothing is trained anew without a sift that could look.
        sifted=scan.detail.retraining is not None
        or any(item.method == METHOD for item in parent or ()),
        retraining=scan.detail.retraining,
        assumed=assumed_in(manifest),
        grey=read_as_grey(manifest, facts),
        unrepaired=scan.detail.unrepaired,
    )
