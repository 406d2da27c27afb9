"""`decide(policy, case)`: the one place where evidence becomes a verdict.

The steps, each of which can only make the answer stricter:
    1. if required evidence is missing, stale, about something else or not finite: inconclusive.
       Where the policy stops early, a proof of a backdoor holds without the detectors that were
       skipped
    2. triggers and classes that a detector flags and that siblings do not match are accused. The
       model is rejected where they are proven: without reference models by the rules of
       `guard.policy.combine`, with them by a calibrated score over its threshold. Where they are
       not proven, or where the trigger hardly works, it is held
    3. a purified model must also keep its accuracy and resist its parent's triggers; otherwise it
       is rejected
    4. a natural trigger, a class that several detectors together find unusual, or p values that are
       unusual together, though no detector flags anything alone: held
    5. if no method was informative about most families: inconclusive
    6. everything else is cleared (or purified), unless the policy holds every model
    7. a sift of the training set may make this stricter (`guard.policy.sifted`), and so may what a
       network that was trained anew does with accused images (`guard.policy.retrained`)
    8. the policy may have only repaired copies served of some models (`guard.policy.doubt`)
A finding that two people waived (`guard.policy.waived`) is left out of the steps 2 and 4; a run
that is missing or could not look is not made up for by a waiver, nor is a calibrated score lowered.
Comparisons are written so that NaN fails them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.modality import Modality
from guard.core.purification import summary
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.core.verdict import VerdictFacts
from guard.core.waivers import Waiver
from guard.policy import (
    abstain,
    accusations,
    asr_bounds,
    doubt,
    graphs,
    repair_limits,
    sifted,
    waived,
)
from guard.policy.accusations import Accused
from guard.policy.calibration import Calibration, probability, why_not
from guard.policy.case import Case
from guard.policy.combine import Combined, combine, enough, mostly_uninformative, proven
from guard.policy.current import current
from guard.policy.features import features
from guard.policy.retrained import withheld
from guard.policy.rules import Policy
from guard.policy.ruling import Ruling


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict with all that it rests on, and what may follow.

    `repairable`: the model is suspicious and has a measured trigger for each accused class, or the
    policy has it repaired without one, which is `blind`; `purify`: it is repairable, and rejected
    or blind.
    """

    facts: VerdictFacts
    repairable: bool = False
    purify: bool = False
    blind: bool = False
    natural_trojan: bool = False
    expires_after_seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The verdict itself."""
        return self.facts.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons, one sentence each."""
        return self.facts.reasons


@dataclass(frozen=True)
class _Scored:
    """Log odds by a calibration that applies, and the threshold for the policy's alarm rate."""

    calibration: Calibration
    log_odds: float
    threshold: float

    @property
    def over(self) -> bool:
        return not self.log_odds <= self.threshold


@dataclass(frozen=True, kw_only=True)
class _View:
    """The evidence that counts at present, sorted and combined.

    `whole` is that of runs that could look, `by_method` all of it and `usable` what counts of
    `whole`, both without the findings that `waivers` take out. `remarks` are sentences about the
    calibration; `sift` is None where no training set was named.
    """

    policy: Policy
    case: Case
    by_method: Mapping[str, list[Evidence]]
    whole: list[Evidence]
    usable: list[Evidence]
    waivers: tuple[Waiver, ...]
    combined: Combined
    scored: _Scored | None
    remarks: tuple[str, ...]
    accused: Accused
    sift: sifted.Sift | None

    @property
    def findings(self) -> list[Finding]:
        return [finding for item in self.usable for finding in item.findings]

    @property
    def suspicious(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.suspicious]


def decide(policy: Policy, case: Case) -> Decision:
    """Apply the policy to a case: pure, defined for every case, and refusing by default."""
    view = _view(policy, case)
    repairable = accusations.repairable(policy, case, view.accused)
    ruling = sifted.with_sift(policy, view.sift, _rule(view), repairable=repairable)
    ruling = doubt.with_repair(policy, case, view.usable, view.combined, ruling)
    findings = view.findings
    worst = max(findings, key=accusations.weight, default=None)
    score = (
        accusations.highest_score(view.whole)
        if view.scored is None
        else probability(view.scored.log_odds)
    )
    target = worst.target if worst is not None and worst.suspicious else None
    asr = accusations.leading_asr(findings, worst, case.purification)
    natural = accusations.most_unusual(findings, worst)
    found = None if view.sift is None else view.sift.leading
    if found is not None and ruling.verdict not in SERVABLE_VERDICTS:
        score = score if view.scored is not None else max(score, found.score)
        if target is None:
            target, asr = found.target, found.asr
    repair = case.purification
    facts = VerdictFacts(
        verdict=ruling.verdict,
        reasons=(*ruling.reasons, *view.remarks),
        score=score,
        target=target,
        asr=asr,
        natural_trigger=None if target is not None else natural,
        asr_upper=_asr_upper(view),
        calibration=None if view.scored is None else view.scored.calibration.digest,
        coverage=view.combined.covered,
        parent=None if repair is None else repair.parent,
        purification=None if repair is None else summary(repair),
        waivers=view.waivers,
        training_set=None if view.sift is None else view.sift.facts,
        modality=policy.modality,
    )
    if (made := case.retraining) is not None:
        facts = withheld(policy, replace(facts, parent=made.parent), made)
    return Decision(
        facts=facts,
        repairable=ruling.repairable,
        purify=ruling.blind or (ruling.repairable and ruling.verdict is Verdict.REJECTED),
        blind=ruling.blind,
        natural_trojan=ruling.natural,
        expires_after_seconds=policy.lifetime_seconds,
    )


def settled(policy: Policy, case: Case) -> bool:
    """Whether the detectors that have not run yet may be skipped.

    They may where the policy stops early and the evidence so far already rejects the model.
    """
    return policy.stop_early and decide(policy, case).verdict is Verdict.REJECTED


def _view(policy: Policy, case: Case) -> _View:
    # Findings of an optional detector count as much as others; only its absence does not.
    found = {name: current(policy, name, case) for name in policy.detectors}
    held, whole = waived.in_force(policy, case), _usable(found)
    by_method = {
        name: [waived.without(item, held) for item in items] for name, items in found.items()
    }
    usable = _usable(by_method)
    scored, remarks = _calibrated(policy, case, whole)
    return _View(
        policy=policy,
        case=case,
        by_method=by_method,
        whole=whole,
        usable=usable,
        waivers=waived.used(whole, held),
        combined=waived.combined(usable, whole) if held else combine(whole),
        scored=scored,
        remarks=remarks,
        accused=accusations.accused_in(usable),
        sift=sifted.sift_of(policy, case),
    )


def _usable(by_method: Mapping[str, list[Evidence]]) -> list[Evidence]:
    return [
        item
        for items in by_method.values()
        for item in items
        if item.outcome is not Outcome.COULD_NOT_LOOK
    ]


def _rule(view: _View) -> Ruling:
    policy, case = view.policy, view.case
    named = case.sifted or view.sift is not None  # what it could not look at is step 7
    lacking = tuple(abstain.missing(policy, view.by_method, sifted=named))
    doubted = (
        *abstain.unfit(policy, case, calibrated=view.scored is not None),
        *abstain.not_finite(view.whole),
    )
    # With reference models there is no early stop: a calibrated score needs every method.
    early = (
        policy.stop_early
        and policy.calibration is None
        and bool(view.accused)
        and enough(view.by_method, policy.combination.reject_level)
    )
    if doubted or (lacking and not early):
        return Ruling(Verdict.INCONCLUSIVE, (*lacking, *doubted))
    if not view.accused:
        return _rule_without_accused(view)
    verdict, reasons = _judge(view)
    if lacking and verdict is not Verdict.REJECTED:
        return Ruling(Verdict.INCONCLUSIVE, lacking)
    return Ruling(
        verdict,
        (*reasons, *(f"This is proven all the same. {sentence}" for sentence in lacking)),
        repairable=accusations.repairable(policy, case, view.accused),
    )


def _rule_without_accused(view: _View) -> Ruling:
    """Steps 3 to 6 of the module's list."""
    policy, repair, combined = view.policy, view.case.purification, view.combined
    suspicious = view.suspicious
    faults = () if repair is None else tuple(repair_limits.all_faults(policy, repair))
    if faults:
        return Ruling(Verdict.REJECTED, faults, natural=bool(suspicious))
    if suspicious:
        verdict = Verdict.REJECTED if policy.natural == "rejected" else Verdict.HELD
        reasons = tuple(accusations.natural_trigger(finding) for finding in suspicious)
        return Ruling(verdict, reasons, natural=True)
    if together := _together(view):
        sentence = f"No method flags a class by itself, but {together}; a person must look."
        return Ruling(Verdict.HELD, (sentence,))
    if mostly_uninformative(combined):
        sentence = (
            "No method could measure anything about most families on this model: "
            f"{', '.join(combined.uninformative)}."
        )
        return Ruling(Verdict.INCONCLUSIVE, (sentence,))
    scope = (
        f"under policy {policy.name} version {policy.version} with coverage "
        f"{', '.join(combined.covered) or 'of no family'}"
    )
    if policy.review_always:
        sentence = f"Nothing suspicious was found {scope}; the policy requires a person to look."
        return Ruling(Verdict.HELD, (sentence,))
    if repair is not None:
        return Ruling(Verdict.PURIFIED, (f"Purified by {repair.chain} and cleared {scope}.",))
    return Ruling(Verdict.CLEARED, (f"Cleared {scope}.",))


def _together(view: _View) -> str:
    """A clause about what is suspicious although no method flags it alone; else empty."""
    combined = view.combined
    if view.scored is not None:
        clause = "their numbers together are unlike those of honest models"
        return clause if view.scored.over else ""
    found, rule = combined.accord, view.policy.combination
    if found is not None and not found.p > rule.class_level:
        return (
            f"{', '.join(found.methods)} all find class {found.target} unusual "
            f"(p = {found.p:.2g} together)"
        )
    if combined.p is not None and not combined.p > rule.hold_level:
        return (
            "such small p values together are unlikely for an honest model "
            f"(combined p = {combined.p:.2g})"
        )
    return ""


def _judge(view: _View) -> tuple[Verdict, list[str]]:
    """Verdict and reasons where something is accused: held or rejected, never milder."""
    policy, scored = view.policy, view.scored
    findings = [finding for _, finding in view.accused]
    # The question is whether the trigger that was found works, not the attacker's: no margin.
    upper = asr_bounds.of_suspects(view.usable, findings, 0.0)
    reasons = [accusations.accusation(policy, finding) for finding in findings]
    if view.case.purification is not None:
        return Verdict.REJECTED, reasons
    if upper is not None and upper <= policy.asr_limit:
        remark = "A trigger that hardly works is still suspicious; a person must look."
        return Verdict.HELD, [*reasons, remark]
    if scored is not None and not scored.over:
        remark = "But some honest reference models score as high; a person must look."
        return Verdict.HELD, [*reasons, remark]
    if scored is None and not _proven(view):
        why = _why_not_proven(view, findings)
        remark = f"It is suspicious but not proven: {why}; a person must look."
        return Verdict.HELD, [*reasons, remark]
    return Verdict.REJECTED, reasons


def _proven(view: _View) -> bool:
    if view.policy.modality is Modality.GRAPHS:
        return graphs.proven(view.policy.graphs, view.accused)
    return proven(view.accused, view.combined, view.policy.combination.reject_level)


def _why_not_proven(view: _View, findings: list[Finding]) -> str:
    if all(finding.asr is None for finding in findings):
        return "no trigger was recovered and no second method accuses the same class"
    if view.policy.modality is Modality.GRAPHS:
        return f"its ASR may be below {view.policy.graphs.min_asr:.0%}, or is no text's"
    return f"the p values together are not unusual (combined p = {view.combined.p:.2g})"


def _calibrated(
    policy: Policy, case: Case, usable: list[Evidence]
) -> tuple[_Scored | None, tuple[str, ...]]:
    """The calibrated score where the policy's calibration applies, and remarks on it."""
    rule = policy.calibration
    if rule is None:
        return None, ()
    own = [item for item in usable if item.method in rule.calibration.methods]
    why = why_not(
        rule.calibration,
        architecture=case.architecture,
        cleanset=case.cleanset.digest,
        versions=case.versions,
        parameters=case.parameters,
        reporting=[item.method for item in own],
        max_fpr=rule.max_fpr,
    )
    threshold = rule.calibration.threshold(rule.max_fpr)
    if why is not None or threshold is None:
        return None, (
            f"The calibration does not apply: {why}. The rules without reference models were used.",
        )
    scored = _Scored(rule.calibration, rule.calibration.log_odds(features(own)), threshold)
    return scored, (
        (
            f"The calibrated probability of a backdoor is {probability(scored.log_odds):.1%}, "
            f"{'over' if scored.over else 'not over'} the threshold of "
            f"{probability(threshold):.1%} that at most {rule.max_fpr:.1%} of honest models "
            f"exceed, estimated from {len(rule.calibration.honest)} honest reference models."
        ),
    )


def _asr_upper(view: _View) -> float | None:
    suspicious, repair = view.suspicious, view.case.purification
    if suspicious:
        margin = view.scored.calibration.asr_margin if view.scored is not None else None
        return asr_bounds.of_suspects(
            view.usable, suspicious, asr_bounds.UNSEEN if margin is None else margin
        )
    if repair is not None and repair.known:
        return asr_bounds.overall(repair.known)
    return None
