"""Reasons to decide nothing; each generator yields one sentence for each reason.

Comparisons are written so that NaN fails them.
"""

import math
from collections.abc import Iterator, Mapping

from guard.core.evidence import CleanSetFacts, Evidence, Finding, Outcome
from guard.core.modality import Modality
from guard.core.pvalues import LEAST_CLASSES
from guard.policy import graphs
from guard.policy.case import Case
from guard.policy.combine import LEAST_IMAGES
from guard.policy.rules import Policy


def missing(
    policy: Policy, by_method: Mapping[str, list[Evidence]], *, sifted: bool
) -> Iterator[str]:
    """Required detectors without usable evidence, and a required sift that was not made.

    `by_method` holds for each method of the policy the evidence that counts at present.
    """
    if policy.training_set.required and not sifted:
        yield "The policy requires a sift of the training set, and there is none of this model's."
    required = [name for name, rule in policy.detectors.items() if rule.required]
    if not required and not policy.detectors and policy.modality is not Modality.IMAGES:
        yield unconfigured(policy)
    elif not required:
        yield "The policy requires no detector, so that nothing was checked that could be cleared."
    for name in required:
        blind = [item for item in by_method[name] if item.outcome is Outcome.COULD_NOT_LOOK]
        if not by_method[name]:
            yield (
                f"There is no evidence of the required detector {name} in its present version and "
                "with its present parameters on this clean set."
            )
        elif len(blind) == len(by_method[name]):
            yield f"The required detector {name} could not look: {blind[-1].reason}"


def unconfigured(policy: Policy) -> str:
    """The sentence about models for which there is no policy."""
    return (
        f"No policy for {policy.modality} models is configured, so that nothing was checked; name "
        "one with --policy, or to the service by GUARD_GRAPH_POLICY_FILE."
    )


def unfit(policy: Policy, case: Case, *, calibrated: bool) -> Iterator[str]:
    """Too little clean data, too few classes, a model that does not do its task on this clean set.

    With reference models (`calibrated`) few classes are no obstacle: nothing compares a class with
    its siblings.
    """
    if case.cleanset.modality is not policy.modality:
        yield (
            f"The policy is for {policy.modality} models; clean set {case.cleanset.name} is for "
            f"{case.cleanset.modality} models."
        )
    elif isinstance(case.cleanset, CleanSetFacts):
        yield from _unfit_images(policy, case, case.cleanset, calibrated=calibrated)
    else:
        yield from graphs.unfit(policy, case.cleanset, case.quality)


def _unfit_images(
    policy: Policy, case: Case, facts: CleanSetFacts, *, calibrated: bool
) -> Iterator[str]:
    rule = policy.cleanset
    if facts.classes < LEAST_CLASSES and not calibrated:
        yield (
            f"The model has {facts.classes} classes; with fewer than {LEAST_CLASSES} there are too "
            "few siblings to compare a class with, and no calibration by reference models applies."
        )
    images = facts.search + facts.calibration + facts.holdout
    if not images >= LEAST_IMAGES:
        yield (
            f"Clean set {facts.name} has {images} images; at least {LEAST_IMAGES} are needed for "
            "any decision."
        )
    if not facts.per_class >= rule.min_per_class:
        yield (
            f"Clean set {facts.name} has {facts.per_class} images of its rarest class; the policy "
            f"requires at least {rule.min_per_class}."
        )
    if not facts.holdout >= rule.min_holdout:
        yield (
            f"Clean set {facts.name} has {facts.holdout} hold-out images; the policy requires "
            f"at least {rule.min_holdout}."
        )
    if case.accuracy is None:
        yield "The clean accuracy of the model was not measured."
    elif not case.accuracy.overall >= _least_accuracy(policy, facts.classes):
        yield (
            f"The clean accuracy is {case.accuracy.overall:.1%}, near chance; check that the clean "
            "set's class order is the model's."
        )
    elif len(case.accuracy.per_class) != facts.classes or not all(
        map(math.isfinite, case.accuracy.per_class)
    ):
        yield "The clean accuracy was not measured for every class."
    elif (
        len(
            lost := [
                index
                for index, recall in enumerate(case.accuracy.per_class)
                if recall < 1 / facts.classes
            ]
        )
        > 1
    ):
        yield (
            f"The model recognises the classes {', '.join(map(str, lost[:5]))} less often than "
            "chance would; check that the clean set's class order is the model's."
        )


def _least_accuracy(policy: Policy, classes: int) -> float:
    # A multiple of chance; for few classes, where that would be near or over 100 %, halfway from
    # chance to 100 %.
    chance = 1 / classes
    return min(policy.accuracy.min_times_chance * chance, (1 + chance) / 2)


def not_finite(usable: list[Evidence]) -> Iterator[str]:
    """Detectors that reported a number with which no comparison can be trusted."""
    for item in usable:
        if not all(finite(finding) for finding in item.findings):
            yield (
                f"Detector {item.method} reported a number that is not finite, on which nothing "
                "can be decided."
            )


def finite(finding: Finding) -> bool:
    """Whether every number of a finding is finite."""
    numbers = [finding.score, *finding.numbers.values()]
    if finding.asr is not None:
        asr = finding.asr
        optional = [number for number in (asr.natural, asr.budget) if number is not None]
        numbers += [asr.estimate, asr.low, asr.high, *optional]
    return all(math.isfinite(number) for number in numbers)
