"""What a verdict on a network that was trained anew must know beside the evidence."""

from dataclasses import replace

from guard.core.retraining import RetrainingFacts
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.policy import asr_bounds
from guard.policy.rules import Policy

REPORTED = "reported"  # the action that only adds the sentence to the reasons


def withheld(policy: Policy, verdict: VerdictFacts, facts: RetrainingFacts) -> VerdictFacts:
    """The verdict, and no clearance for a network that still obeys images of the proof part.

    The limit is that of a repair: the upper end of the rate, less the estimated share of clean
    images among the accused, which have their true label.
    """
    broken = [
        f"{one.after.successes} of {one.after.trials} accused training images that were kept for "
        f"the proof still lead to class {one.after.target} ({one.before.successes} did before), "
        f"over {policy.asr_limit:.0%} and the estimated {one.fdr:.1%} of clean images among them."
        for one in facts.on_proof
        if not asr_bounds.overall([one.after], len(facts.on_proof)) <= policy.asr_limit + one.fdr
    ]
    if not broken:
        return verdict
    action, now = policy.training_set.action, verdict.verdict
    if now in {Verdict.CLEARED, Verdict.HELD} and action != REPORTED:
        now = Verdict(action)
    return replace(verdict, verdict=now, reasons=(*broken, *verdict.reasons))
