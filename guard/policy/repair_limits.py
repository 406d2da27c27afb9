"""Faults of a purified model: lost accuracy, triggers that still work, easy reactivation."""

import math
from collections.abc import Iterator, Sequence

from guard.core.evidence import Target
from guard.core.modality import Modality
from guard.core.purification import PurificationFacts
from guard.core.pvalues import mcnemar
from guard.core.sift import SiftRules
from guard.core.states import Family
from guard.policy import asr_bounds, graphs
from guard.policy.rules import Policy, ProofRule

ERROR = 0.05  # of all classes together
CERTAIN = 2.0  # times its limit: no class may lose more than this, whatever chance explains
ROUNDING = 1e-9  # of differences of shares: 9 of 450 images are exactly 2 %


def all_faults(policy: Policy, facts: PurificationFacts) -> Iterator[str]:
    """All faults of a repair, one sentence each.

    They are the accuracy that it cost, the parent's triggers and accused training images that still
    work, and `faults`.
    """
    if policy.modality is Modality.GRAPHS:
        yield from graphs.faults(policy.graphs, facts)
        yield from faults(policy.proof, facts)
        return
    drop = facts.acc_before.overall - facts.acc_after.overall
    if not _within(drop, policy.accuracy.max_drop):
        yield (
            f"{facts.defense} cost {drop:.1%} of clean accuracy; the policy allows "
            f"{policy.accuracy.max_drop:.1%}."
        )
    before_all, after_all = facts.acc_before.per_class, facts.acc_after.per_class
    if len(before_all) != len(after_all):
        yield f"The accuracy before and after {facts.defense} was not measured on the same classes."
    for index, (before, after) in enumerate(zip(before_all, after_all, strict=False)):
        if _lost(
            before - after,
            facts.swapped[index : index + 1],
            policy.accuracy.max_class_drop,
            len(before_all),
        ):
            yield (
                f"{facts.defense} cost class {index} {before - after:.1%} of its recall; the "
                f"policy allows {policy.accuracy.max_class_drop:.1%}."
            )
    for replay in facts.replayed:
        # Each bound is widened for the number of replays, so that all hold at once.
        upper = asr_bounds.overall([replay], len(facts.replayed))
        if not upper <= policy.asr_limit:
            yield (
                f"The parent's trigger for class {replay.target} still works on "
                f"{replay.estimate:.1%} ({replay.low:.1%} to {upper:.1%}) of the hold-out, over "
                f"{policy.asr_limit:.0%}."
            )
    yield from _against_suspects(policy.asr_limit, facts)
    yield from faults(policy.proof, facts)
    yield from _kept(policy.proof.max_kept, facts)


def _kept(limit: float | None, facts: PurificationFacts) -> Iterator[str]:
    """Whether too many of the parent's universal perturbations work on a blindly repaired copy."""
    if limit is None or not facts.blind:
        return
    worked = sum(one.worked for one in facts.universal)
    if not worked:  # found none, or not measured: nothing shows that the repair did anything
        why = " ".join(facts.unproved)
        yield (
            "The policy requires that universal perturbations of the uploaded model are tried on "
            f"its copy, which was not done. {why}"
        ).rstrip()
        return
    kept = sum(one.kept for one in facts.universal)
    if not kept <= limit * worked + ROUNDING:
        yield (
            f"{kept} of {worked} universal perturbations that were found on the uploaded model "
            f"still work on its copy; the policy allows {limit:.0%} of them."
        )


def _against_suspects(limit: float, facts: PurificationFacts) -> Iterator[str]:
    """Accused training images, and triggers estimated from them, that still work."""
    for one in facts.suspects:
        upper = asr_bounds.overall([one.after], len(facts.suspects))
        # Clean images among the accused have their true label, which a good repair keeps.
        if not upper <= limit + one.fdr:
            yield (
                f"{one.after.successes} of {one.after.trials} accused training images that were "
                f"kept for the proof still lead to class {one.after.target} (up to {upper:.1%}; "
                f"{one.before.successes} did on the parent), over {limit:.0%} and the estimated "
                f"{one.fdr:.1%} of clean images among them."
            )
    for found in facts.moments:
        upper = asr_bounds.overall([found.after], len(facts.moments))
        if not upper <= limit:
            yield (
                f"The trigger for class {found.after.target} that was estimated from accused "
                f"training images still works on {found.after.estimate:.1%} (up to {upper:.1%}) of "
                f"the hold-out, over {limit:.0%}."
            )
        beside = found.searched
        if beside is None:
            continue
        # Any class may be reached by a patch of that size: only what siblings do not need counts.
        natural = beside.natural or 0.0
        if not beside.low <= max(limit, natural + SiftRules().ahead):
            yield (
                f"From the trigger for class {beside.target} that was estimated from accused "
                f"training images, a search finds a patch of the same size that works on "
                f"{beside.estimate:.1%} ({beside.low:.1%} at least) of the hold-out; the best of "
                f"its siblings works on {natural:.1%}."
            )


def _within(difference: float, limit: float) -> bool:
    """Whether a difference of two shares is at most the limit; NaN never is."""
    return difference <= limit + ROUNDING


def _lost(drop: float, swaps: Sequence[tuple[int, int]], limit: float, classes: int) -> bool:
    """Whether a class has lost too much recall.

    A loss of over twice the limit always is too much, a smaller one over the limit only where
    chance does not explain it: the worst of many classes with a few dozen images each is mostly the
    unluckiest one (decision 0015).
    """
    if _within(drop, limit):
        return False
    if math.isnan(drop) or not swaps:
        return True
    lost, gained = swaps[0]
    return not _within(drop, CERTAIN * limit) or mcnemar(lost, gained) <= ERROR / classes


def faults(rule: ProofRule, facts: PurificationFacts) -> Iterator[str]:
    """The limits of `rule` that a repair breaks, one sentence each.

    Every class whose patch was replayed must have been measured; NaN breaks a limit.
    """
    replayed = {one.target for one in facts.replayed if one.family == Family.PATCH}
    if rule.max_resampled is not None:
        yield from _unmeasured(
            replayed - {one.after.target for one in facts.resampled}, "with fresh patches", facts
        )
        for sample in facts.resampled:
            upper = asr_bounds.overall([sample.after], len(facts.resampled))
            if not upper <= rule.max_resampled:
                source = (
                    "found on the parent by new searches"
                    if sample.searches
                    else "from the parent's distribution"
                )
                yield (
                    f"Fresh patches {source} still lead to class {sample.after.target} on "
                    f"{sample.after.estimate:.1%} (up to {upper:.1%}) of the hold-out, over "
                    f"{rule.max_resampled:.0%}."
                )
    if rule.max_lead is not None:
        yield from _unmeasured(
            replayed - {one.target for one in facts.relearned}, "by relearning its trigger", facts
        )
        for probe in facts.relearned:
            if not _within(probe.lead, rule.max_lead):
                draws = f", the mean of {len(probe.leads)} draws" if len(probe.leads) > 1 else ""
                yield (
                    f"The parent's trigger for class {probe.target} is relearned far faster than "
                    f"a random one (a lead of {100 * probe.lead:.0f} points of ASR within "
                    f"{probe.steps[-1]} steps on {probe.images} images{draws}, over "
                    f"{100 * rule.max_lead:.0f})."
                )
    if rule.max_woken is not None:
        wanted: set[Target] = {one.target for one in facts.replayed if isinstance(one.target, int)}
        known = {one.stamped.target for one in facts.reactivated}
        yield from _unmeasured(wanted - known, "by trying to reactivate it", facts)
        for found in facts.reactivated:
            if not _within(found.lead, rule.max_woken):
                yield (
                    f"A perturbation of at most {found.radius:.1%} reactivates the parent's "
                    f"trigger for class {found.stamped.target}: {found.stamped.estimate:.1%} of "
                    f"the hold-out, {found.alone.estimate:.1%} without the trigger; the policy "
                    f"allows a lead of {100 * rule.max_woken:.0f} points."
                )


def _unmeasured(targets: set[Target], how: str, facts: PurificationFacts) -> Iterator[str]:
    for target in sorted(targets, key=str):
        why = " ".join(facts.unproved)
        yield (
            f"The policy requires the repair of class {target} to be tested {how}, which was not "
            f"done. {why}"
        ).rstrip()
