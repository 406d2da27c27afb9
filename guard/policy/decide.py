"""decide(policy, case): the one place where evidence becomes a verdict.

The steps, each of which can only make the answer stricter:
    1. whatever is missing, stale, about something else, or not finite decides nothing: inconclusive
    2. a suspicious finding rejects; it is held where its trigger hardly works, or works as well on sibling classes
    3. a purified model must also keep its accuracy and resist its parent's triggers, or is rejected
    4. what is left is cleared (or purified), unless a person must look
Comparisons are written so that NaN fails them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from guard.core.evidence import (
    Accuracy,
    AsrEstimate,
    CleanSetFacts,
    Evidence,
    Finding,
    Outcome,
    PurificationFacts,
    Target,
)
from guard.core.states import Verdict
from guard.policy.rules import Policy


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that may be read about one artifact.

    `versions` holds the methods' present versions, `parameters` all parameters that they run with under this policy;
    without an entry in `parameters`, only the ones that the policy itself sets are compared.
    """

    artifact: str
    cleanset: CleanSetFacts
    evidence: tuple[Evidence, ...]
    accuracy: Accuracy | None
    versions: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    purification: PurificationFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict with its reasons. `score` is in 0..1; `purify` says that repairing it is worth a try."""

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float
    coverage: tuple[str, ...]
    target: Target = None
    asr: AsrEstimate | None = None
    purify: bool = False
    natural_trojan: bool = False
    expires_after_seconds: float = 0.0


def decide(policy: Policy, case: Case) -> Decision:
    """Apply the policy; pure, total, and closed by default."""
    # What an optional detector says counts as much; only its silence does not.
    said = {name: _current(policy, name, case) for name in policy.detectors}
    heard = [item for items in said.values() for item in items if item.outcome is not Outcome.COULD_NOT_LOOK]
    findings = [finding for item in heard for finding in item.findings]
    worst = max(findings, key=_weight, default=None)
    coverage = tuple(sorted({family for item in heard for family in item.families}))

    def answer(verdict: Verdict, *reasons: str, purify: bool = False, natural: bool = False) -> Decision:
        return Decision(
            verdict=verdict, reasons=reasons, score=_score(heard), coverage=coverage,
            target=worst.target if worst is not None and worst.suspicious else None,
            asr=_telling_asr(worst, case.purification), purify=purify, natural_trojan=natural,
            expires_after_seconds=policy.lifetime_seconds,
        )

    doubts = (*_missing(policy, said), *_unfit(policy, case), *_not_finite(heard))
    if doubts:
        return answer(Verdict.INCONCLUSIVE, *doubts)
    suspicious = [finding for finding in findings if finding.suspicious]
    guilty = [finding for finding in suspicious if not _natural(finding)]
    if guilty:
        words = [_accusation(policy, finding) for finding in guilty]
        if case.purification is None and all(_harmless(policy, finding) for finding in guilty):
            return answer(Verdict.HELD, *words, "A trigger that hardly works is still a sign; a person must look.")
        # Without a measured trigger nothing could show that a repair has worked.
        purify = bool(policy.defenses) and case.purification is None and all(finding.asr for finding in guilty)
        return answer(Verdict.REJECTED, *words, purify=purify)
    faults = () if case.purification is None else tuple(_purification_faults(policy, case.purification))
    if faults:
        return answer(Verdict.REJECTED, *faults, natural=bool(suspicious))
    if suspicious:
        verdict = Verdict.REJECTED if policy.natural == "rejected" else Verdict.HELD
        return answer(verdict, *(_natural_words(finding) for finding in suspicious), natural=True)
    told = f"under policy {policy.name} version {policy.version} with coverage {', '.join(coverage) or 'of no family'}"
    if policy.review_always:
        return answer(Verdict.HELD, f"Nothing suspicious was found {told}; the policy wants a person to look.")
    if case.purification is not None:
        return answer(Verdict.PURIFIED, f"Purified by {case.purification.defense} and cleared {told}.")
    return answer(Verdict.CLEARED, f"Cleared {told}.")


def _current(policy: Policy, name: str, case: Case) -> list[Evidence]:
    """All evidence of a method as it would run now: this artifact, this clean set, present version and parameters.

    Of several runs every one counts: running again with other seeds must not wash a finding away.
    """
    rule, full = policy.detectors[name].params, case.parameters.get(name)
    wanted = rule if full is None else full
    return [
        item
        for item in case.evidence
        if item.method == name and item.artifact == case.artifact and item.cleanset == case.cleanset.digest
        and item.version == case.versions.get(name)
        and (full is None or set(item.parameters) == set(full))
        and all(key in item.parameters and _same(item.parameters[key], value) for key, value in wanted.items())
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


def _missing(policy: Policy, said: Mapping[str, list[Evidence]]) -> Iterator[str]:
    required = [name for name, rule in policy.detectors.items() if rule.required]
    if not required:
        yield "The policy requires no detector, and nothing to check is no reason to clear."
    for name in required:
        blind = [item for item in said[name] if item.outcome is Outcome.COULD_NOT_LOOK]
        if not said[name]:
            yield (f"There is no evidence of the required detector {name} in its present version and with its present "
                   "parameters on this clean set.")
        elif len(blind) == len(said[name]):
            yield f"The required detector {name} could not look: {blind[-1].reason}"


def _unfit(policy: Policy, case: Case) -> Iterator[str]:
    facts, rule = case.cleanset, policy.cleanset
    if not facts.per_class >= rule.min_per_class:
        yield (f"Clean set {facts.name} has {facts.per_class} images of its rarest class; the policy wants at least "
               f"{rule.min_per_class}.")
    if not facts.holdout >= rule.min_holdout:
        yield f"Clean set {facts.name} has {facts.holdout} hold-out images; the policy wants {rule.min_holdout}."
    if case.accuracy is None:
        yield "The clean accuracy of the model was not measured."
    elif not case.accuracy.overall >= _least_accuracy(policy, facts.classes):
        yield (f"The clean accuracy is {case.accuracy.overall:.1%}, near chance; check that the clean set's class "
               "order is the model's.")
    elif len(case.accuracy.per_class) != facts.classes or not all(map(math.isfinite, case.accuracy.per_class)):
        yield "The clean accuracy was not measured for every class."


def _least_accuracy(policy: Policy, classes: int) -> float:
    # Some times chance; for few classes, where that would be near or over 100 %, halfway from chance to all right.
    chance = 1 / classes
    return min(policy.accuracy.min_times_chance * chance, (1 + chance) / 2)


def _not_finite(heard: list[Evidence]) -> Iterator[str]:
    for item in heard:
        if not all(_finite(finding) for finding in item.findings):
            yield f"Detector {item.method} gave a number that is not finite; it decides nothing."


def _finite(finding: Finding) -> bool:
    numbers = [finding.score, *finding.numbers.values()]
    if finding.asr is not None:
        asr = finding.asr
        optional = [number for number in (asr.natural, asr.budget) if number is not None]
        numbers += [asr.estimate, asr.low, asr.high, *optional]
    return all(math.isfinite(number) for number in numbers)


def _telling_asr(worst: Finding | None, purification: PurificationFacts | None) -> AsrEstimate | None:
    """The rate that a reader should see first.

    Of a suspicious trigger its own; of a purified model the parent's triggers, replayed; else that of the most
    unusual trigger found, marked as natural by a `natural` rate equal to its own: siblings need as little.
    """
    if worst is not None and worst.suspicious:
        return worst.asr if _finite(worst) else None
    if purification is not None and purification.replayed:
        return max(purification.replayed, key=lambda estimate: estimate.high)
    if worst is None or worst.asr is None or not _finite(worst):
        return None
    return replace(worst.asr, natural=worst.asr.estimate)


def _natural(finding: Finding) -> bool:
    """Whether sibling classes reach this trigger's ASR at its own budget: a property of the task, not an implant."""
    asr = finding.asr
    return asr is not None and asr.natural is not None and asr.natural >= asr.low


def _harmless(policy: Policy, finding: Finding) -> bool:
    """Whether the recovered trigger surely works on less than the limit."""
    return finding.asr is not None and finding.asr.high <= policy.asr_limit


def _accusation(policy: Policy, finding: Finding) -> str:
    if finding.asr is None:
        return f"{finding.statement} Its ASR could not be measured."
    asr = finding.asr
    over = "not over" if _harmless(policy, finding) else "over"
    return (f"{finding.statement} On {asr.trials} hold-out images its ASR is {asr.estimate:.1%} "
            f"({asr.low:.1%} to {asr.high:.1%}), {over} the limit of {policy.asr_limit:.0%}.")


def _natural_words(finding: Finding) -> str:
    natural = finding.asr.natural if finding.asr is not None and finding.asr.natural is not None else 0.0
    return (f"{finding.statement} But a sibling class reaches {natural:.1%} at the same budget: perhaps a natural "
            "trigger of the task; a person must look.")


def _purification_faults(policy: Policy, facts: PurificationFacts) -> Iterator[str]:
    drop = facts.acc_before.overall - facts.acc_after.overall
    if not drop <= policy.accuracy.max_drop:
        yield (f"{facts.defense} cost {drop:.1%} of clean accuracy; the policy allows {policy.accuracy.max_drop:.1%}.")
    before_all, after_all = facts.acc_before.per_class, facts.acc_after.per_class
    if len(before_all) != len(after_all):
        yield f"The accuracy before and after {facts.defense} was not measured on the same classes."
    for index, (before, after) in enumerate(zip(before_all, after_all, strict=False)):
        if not before - after <= policy.accuracy.max_class_drop:
            yield (f"{facts.defense} cost class {index} {before - after:.1%} of its recall; the policy allows "
                   f"{policy.accuracy.max_class_drop:.1%}.")
    for replay in facts.replayed:
        if not replay.high <= policy.asr_limit:
            yield (f"The parent's trigger for class {replay.target} still works on {replay.estimate:.1%} "
                   f"({replay.low:.1%} to {replay.high:.1%}) of the hold-out, over {policy.asr_limit:.0%}.")
