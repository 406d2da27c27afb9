"""decide(policy, case): the one place where evidence becomes a verdict.

The steps, each of which can only make the answer stricter:
    1. whatever is missing, stale, about something else, or not finite decides nothing:
       inconclusive. Where the policy stops early, a proof of a backdoor stands without the
       detectors that were spared
    2. accused are the triggers and classes that a detector flags and that siblings do not match.
       They reject where they are proven: without reference models by the rules of
       `guard.policy.combine`, with them by a calibrated score over its threshold. Where they are
       not, or where the trigger hardly works, a person must look
    3. a purified model must also keep its accuracy and resist its parent's triggers, or is rejected
    4. a natural trigger, a class that several detectors find unusual or p values that are so
       together, though no detector flags anything alone: a person must look
    5. families that were looked at in vain, if they are most: inconclusive
    6. what is left is cleared (or purified), unless a person must look
Comparisons are written so that NaN fails them.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from guard.core.evidence import AsrEstimate, Evidence, Finding, Outcome, PurificationFacts, Target
from guard.core.states import Verdict
from guard.policy import abstain, asr_bounds, repair_limits
from guard.policy.abstain import finite
from guard.policy.calibration import Calibration, probability, why_not
from guard.policy.case import Case
from guard.policy.combine import Combined, combine, enough, mostly_in_vain, proven
from guard.policy.features import features
from guard.policy.rules import Policy

Accused = list[tuple[str, Finding]]  # method and finding


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict with its reasons.

    `score` is in 0..1; `purify` says that repairing it is worth a try.

    `asr_upper` bounds the rates of all accused triggers at once (of a purified model, of its
    parent's triggers); None where there are none. `calibration` is the digest of the calibration
    file that the score comes from.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float
    coverage: tuple[str, ...]
    target: Target = None
    asr: AsrEstimate | None = None
    asr_upper: float | None = None
    calibration: str | None = None
    repairable: bool = False  # suspicious, with a measured trigger for each accused class
    purify: bool = False  # repairable, and rejected
    natural_trojan: bool = False
    expires_after_seconds: float = 0.0


@dataclass(frozen=True)
class _Scored:
    """What a calibration that applies says.

    Log odds against the threshold that its policy's rate asks for.
    """

    calibration: Calibration
    log_odds: float
    threshold: float

    @property
    def over(self) -> bool:
        return not self.log_odds <= self.threshold


def decide(policy: Policy, case: Case) -> Decision:
    """Apply the policy; pure, total, and closed by default."""
    # What an optional detector says counts as much; only its silence does not.
    said = {name: _current(policy, name, case) for name in policy.detectors}
    heard = [
        item
        for items in said.values()
        for item in items
        if item.outcome is not Outcome.COULD_NOT_LOOK
    ]
    findings = [finding for item in heard for finding in item.findings]
    worst = max(findings, key=_weight, default=None)
    combined = combine(heard)
    scored, remarks = _calibrated(policy, case, heard)
    suspicious = [finding for finding in findings if finding.suspicious]
    accused: Accused = [
        (item.method, finding)
        for item in heard
        for finding in item.findings
        if finding.suspicious and not _natural(finding)
    ]
    upper = _asr_upper(heard, suspicious, case.purification, scored)

    def answer(
        verdict: Verdict, *reasons: str, repairable: bool = False, natural: bool = False
    ) -> Decision:
        return Decision(
            verdict=verdict,
            reasons=(*reasons, *remarks),
            coverage=combined.covered,
            score=_score(heard) if scored is None else probability(scored.log_odds),
            target=worst.target if worst is not None and worst.suspicious else None,
            asr=_telling_asr(findings, worst, case.purification),
            asr_upper=upper,
            calibration=None if scored is None else scored.calibration.digest,
            repairable=repairable,
            purify=repairable and verdict is Verdict.REJECTED,
            natural_trojan=natural,
            expires_after_seconds=policy.lifetime_seconds,
        )

    lacking = tuple(abstain.missing(policy, said))
    doubted = (
        *abstain.unfit(policy, case, calibrated=scored is not None),
        *abstain.not_finite(heard),
    )
    # With reference models there is no early stop: a calibrated score needs every method.
    early = (
        policy.stop_early
        and policy.calibration is None
        and bool(accused)
        and enough(said, policy.combination.reject_level)
    )
    if doubted or (lacking and not early):
        return answer(Verdict.INCONCLUSIVE, *lacking, *doubted)
    if accused:
        verdict, words = _judge(policy, case, heard, accused, combined, scored)
        if lacking and verdict is not Verdict.REJECTED:
            return answer(Verdict.INCONCLUSIVE, *lacking)
        return answer(
            verdict,
            *words,
            *(f"Proven all the same. {word}" for word in lacking),
            repairable=_repairable(policy, case, accused),
        )
    faults = (
        ()
        if case.purification is None
        else tuple(repair_limits.all_faults(policy, case.purification))
    )
    if faults:
        return answer(Verdict.REJECTED, *faults, natural=bool(suspicious))
    if suspicious:
        verdict = Verdict.REJECTED if policy.natural == "rejected" else Verdict.HELD
        return answer(verdict, *(_natural_words(finding) for finding in suspicious), natural=True)
    if together := _together(policy, combined, scored):
        return answer(
            Verdict.HELD, f"No method flags a class by itself, but {together}; a person must look."
        )
    if mostly_in_vain(combined):
        return answer(
            Verdict.INCONCLUSIVE,
            f"Of most families nothing could be told on this model: {', '.join(combined.in_vain)}.",
        )
    told = (
        f"under policy {policy.name} version {policy.version} with coverage "
        f"{', '.join(combined.covered) or 'of no family'}"
    )
    if policy.review_always:
        return answer(
            Verdict.HELD, f"Nothing suspicious was found {told}; the policy wants a person to look."
        )
    if case.purification is not None:
        return answer(
            Verdict.PURIFIED, f"Purified by {case.purification.chain} and cleared {told}."
        )
    return answer(Verdict.CLEARED, f"Cleared {told}.")


def _together(policy: Policy, combined: Combined, scored: _Scored | None) -> str:
    """What is suspicious although no method flags it alone; empty where nothing is."""
    if scored is not None:
        return "together their numbers are unlike those of honest models" if scored.over else ""
    found, rule = combined.accord, policy.combination
    if found is not None and not found.p > rule.class_level:
        return (
            f"{', '.join(found.methods)} all find class {found.target} unusual (p = "
            f"{found.p:.2g} together)"
        )
    if combined.p is not None and not combined.p > rule.hold_level:
        return (
            "so small p values together are unlikely in an honest model (combined p = "
            f"{combined.p:.2g})"
        )
    return ""


def _calibrated(
    policy: Policy, case: Case, heard: list[Evidence]
) -> tuple[_Scored | None, tuple[str, ...]]:
    """The calibrated score, if the policy names a calibration and it applies.

    And what to say about it.
    """
    rule = policy.calibration
    if rule is None:
        return None, ()
    own = [item for item in heard if item.method in rule.calibration.methods]
    why = why_not(
        rule.calibration,
        architecture=case.architecture,
        cleanset=case.cleanset.digest,
        versions=case.versions,
        parameters=case.parameters,
        heard=[item.method for item in own],
        max_fpr=rule.max_fpr,
    )
    threshold = rule.calibration.threshold(rule.max_fpr)
    if why is not None or threshold is None:
        return None, (
            f"The calibration does not apply: {why}. The rules without reference models decided.",
        )
    scored = _Scored(rule.calibration, rule.calibration.log_odds(features(own)), threshold)
    return scored, (
        (
            f"The calibrated probability of a backdoor is {probability(scored.log_odds):.1%}, "
            f"{'over' if scored.over else 'not over'} the threshold of "
            f"{probability(threshold):.1%} that at most "
            f"{rule.max_fpr:.1%} of honest models exceed, by {len(rule.calibration.honest)} "
            "honest reference models."
        ),
    )


def _judge(
    policy: Policy,
    case: Case,
    heard: list[Evidence],
    accused: Accused,
    combined: Combined,
    scored: _Scored | None,
) -> tuple[Verdict, list[str]]:
    """Verdict and reasons where something is accused: held or rejected, never less."""
    findings = [finding for _, finding in accused]
    upper = asr_bounds.of_suspects(
        heard, findings, 0.0
    )  # whether the trigger that was found works, not the attacker's
    words = [_accusation(policy, finding) for finding in findings]
    if case.purification is not None:
        return Verdict.REJECTED, words
    if upper is not None and upper <= policy.asr_limit:
        return Verdict.HELD, [
            *words,
            "A trigger that hardly works is still a sign; a person must look.",
        ]
    if scored is not None and not scored.over:
        return Verdict.HELD, [
            *words,
            "But honest reference models raise such an alarm as well; a person must look.",
        ]
    if scored is None and not proven(accused, combined, policy.combination.reject_level):
        why = (
            "no trigger was recovered and no second method accuses the same class"
            if all(finding.asr is None for finding in findings)
            else f"all p values together are not unusual (combined p = {combined.p:.2g})"
        )
        return Verdict.HELD, [
            *words,
            f"It is suspicious but not proven: {why}; a person must look.",
        ]
    return Verdict.REJECTED, words


def settled(policy: Policy, case: Case) -> bool:
    """Whether the detectors that have not looked yet may be spared.

    What is there already rejects the model.
    """
    return policy.stop_early and decide(policy, case).verdict is Verdict.REJECTED


def _repairable(policy: Policy, case: Case, accused: Accused) -> bool:
    """Whether a repair is worth a try.

    Without a measured trigger for each class nothing could show that it worked.
    """
    measured = {finding.target for _, finding in accused if finding.asr is not None}
    return (
        bool(policy.defenses)
        and case.purification is None
        and {f.target for _, f in accused} <= measured
    )


def _asr_upper(
    heard: list[Evidence],
    suspicious: list[Finding],
    purification: PurificationFacts | None,
    scored: _Scored | None,
) -> float | None:
    if suspicious:
        margin = scored.calibration.asr_margin if scored is not None else None
        return asr_bounds.of_suspects(
            heard, suspicious, asr_bounds.UNSEEN if margin is None else margin
        )
    if purification is not None and purification.replayed:
        return asr_bounds.overall(purification.replayed)
    return None


def _current(policy: Policy, name: str, case: Case) -> list[Evidence]:
    """All evidence of a method as it would run now.

    This artifact, this clean set, present version and parameters.

    Of several runs every one counts: running again with other seeds must not wash a finding away.
    """
    rule, full = policy.detectors[name].params, case.parameters.get(name)
    wanted = rule if full is None else full
    return [
        item
        for item in case.evidence
        if item.method == name
        and item.artifact == case.artifact
        and item.cleanset == case.cleanset.digest
        and item.version == case.versions.get(name)
        and (full is None or set(item.parameters) == set(full))
        and all(
            key in item.parameters and _same(item.parameters[key], value)
            for key, value in wanted.items()
        )
    ]


def _same(one: Any, other: Any) -> bool:
    # Parameters that were stored come back as JSON: a tuple as a list.
    plain = [list(value) if isinstance(value, tuple) else value for value in (one, other)]
    return bool(plain[0] == plain[1])


def _weight(finding: Finding) -> tuple[bool, float]:
    return (finding.suspicious, finding.score if math.isfinite(finding.score) else math.inf)


def _score(heard: list[Evidence]) -> float:
    scores = [finding.score for item in heard for finding in item.findings]
    # A score that nobody could measure is no sign of innocence.
    if not heard or not all(map(math.isfinite, scores)):
        return 1.0
    return max(scores, default=0.0)


def _telling_asr(
    findings: list[Finding], worst: Finding | None, purification: PurificationFacts | None
) -> AsrEstimate | None:
    """The rate that a reader should see first.

    Of the accused class the loudest trigger that was measured, which need not be what accuses
    loudest; of a purified model the parent's triggers, replayed; else that of the most unusual
    trigger found, marked as natural by a `natural` rate equal to its own: siblings need as little.
    """
    measured = [finding for finding in findings if finding.asr is not None and finite(finding)]
    if worst is not None and worst.suspicious:
        measured = [
            finding for finding in measured if finding.suspicious and finding.target == worst.target
        ]
        return max(measured, key=_weight).asr if measured and finite(worst) else None
    if purification is not None and purification.replayed:
        return max(purification.replayed, key=lambda estimate: estimate.high)
    if not measured or worst is None or not finite(worst):
        return None
    natural = max(measured, key=_weight).asr
    assert natural is not None
    return replace(natural, natural=natural.estimate)


def _natural(finding: Finding) -> bool:
    """Whether sibling classes reach this trigger's ASR at its own budget.

    A property of the task, not an implant.
    """
    asr = finding.asr
    return asr is not None and asr.natural is not None and asr.natural >= asr.low


def _harmless(policy: Policy, finding: Finding) -> bool:
    """Whether the recovered trigger surely works on less than the limit."""
    return finding.asr is not None and finding.asr.high <= policy.asr_limit


def _accusation(policy: Policy, finding: Finding) -> str:
    if finding.asr is None:
        return f"{finding.statement} An ASR could not be measured, for no trigger was recovered."
    asr = finding.asr
    over = "not over" if _harmless(policy, finding) else "over"
    return (
        f"{finding.statement} On {asr.trials} hold-out images its ASR is {asr.estimate:.1%} "
        f"({asr.low:.1%} to {asr.high:.1%}), {over} the limit of {policy.asr_limit:.0%}."
    )


def _natural_words(finding: Finding) -> str:
    natural = (
        finding.asr.natural if finding.asr is not None and finding.asr.natural is not None else 0.0
    )
    return (
        f"{finding.statement} But a sibling class reaches {natural:.1%} at the same budget: "
        "perhaps a natural "
        "trigger of the task; a person must look."
    )
