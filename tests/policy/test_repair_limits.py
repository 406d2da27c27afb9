"""Limits of [proof].

None by default, a sentence where one is broken, and no pass for what was not measured.
"""

import math
from dataclasses import replace

import pytest

from guard.core.errors import PolicyError
from guard.core.evidence import Accuracy, AsrEstimate
from guard.core.plain import from_plain, to_plain
from guard.core.purification import (
    MomentTrigger,
    OnSuspects,
    PurificationFacts,
    Reactivated,
    Relearned,
    Resampled,
    UniversalTransfer,
)
from guard.core.states import Verdict
from guard.ml.statistics import wilson
from guard.policy import Policy, ProofRule, decide
from guard.policy.load import policy_from
from tests.policy.making import POLICY, a_case, a_purification, an_asr

BOTH = ProofRule(max_resampled=0.1, max_lead=0.3)


def facts(
    high: float = 0.05, rates: tuple[float, ...] = (0.0, 0.1, 0.2), **more: object
) -> PurificationFacts:
    taught = Relearned(
        target=1,
        family="patch",
        budget=9.0,
        images=10,
        steps=(0, 1, 2),
        asr=rates,
        rivals=((0.0, 0.0, 0.1), (0.0, 0.05, 0.0)),
    )
    sample = Resampled(before=an_asr(0.98), after=an_asr(high))
    return a_purification(**{"resampled": (sample,), "relearned": (taught,), **more})


def verdict(found: PurificationFacts, rule: ProofRule = BOTH) -> tuple[Verdict, str]:
    decision = decide(replace(POLICY, proof=rule), a_case(purification=found))
    return decision.verdict, " ".join(decision.reasons)


def test_what_resists_is_purified() -> None:
    assert verdict(facts())[0] is Verdict.PURIFIED


def test_fresh_patches_that_work_reject() -> None:
    found, words = verdict(facts(high=0.6))

    assert found is Verdict.REJECTED
    assert "Fresh patches from the parent's distribution still lead to class 1 on 54.0%" in words
    searched = Resampled(before=an_asr(0.98), after=an_asr(0.6), searches=8)
    assert (
        "Fresh patches found on the parent by new searches still"
        in verdict(facts(resampled=(searched,)))[1]
    )


def test_a_backdoor_that_wakes_fast_rejects_and_one_that_wakes_as_any_other_does_not() -> None:
    assert verdict(facts(rates=(0.0, 0.1, 0.39)))[0] is Verdict.PURIFIED
    found, words = verdict(facts(rates=(0.0, 0.5, 0.1)))

    assert found is Verdict.REJECTED
    assert "a lead of 45 points of ASR within 2 steps on 10 images, over 30" in words


def woken(stamped: float, alone: float) -> Reactivated:
    return Reactivated(
        radius=0.03,
        stamped=replace(an_asr(0.5), estimate=stamped),
        alone=replace(an_asr(0.5), estimate=alone),
    )


@pytest.mark.parametrize(
    ("universal", "blind", "sentence"),
    [
        ((10, 2), True, ""),
        ((10, 3), True, "3 of 15 universal perturbations"),
        ((0, 0), True, "which was not done. It ran out of time."),
        (None, True, "which was not done. It ran out of time."),
        ((10, 9), False, ""),
        (None, False, ""),
    ],
)
def test_universal_perturbations_that_still_work_reject_a_blind_repair(
    universal: tuple[int, int] | None, blind: bool, sentence: str
) -> None:
    """A second kind, of which 5 worked and 0 were kept, unless nothing was measured."""
    found: tuple[UniversalTransfer, ...] = ()
    if universal is not None:
        worked, kept = universal
        found = (
            UniversalTransfer(kind="patches", classes=10, worked=worked, kept=kept),
            UniversalTransfer(kind="waves", classes=10, worked=min(worked, 5), kept=0),
        )
    measured = facts(universal=found, blind=blind, unproved=("It ran out of time.",))

    for rule, expected in ((ProofRule(max_kept=0.14), sentence), (ProofRule(), "")):
        became, why = verdict(measured, rule)

        assert became is (Verdict.REJECTED if expected else Verdict.PURIFIED)
        assert expected in why


def test_a_trigger_that_a_perturbation_wakes_rejects_unless_it_needs_no_trigger() -> None:
    rule = ProofRule(max_woken=0.3)

    assert verdict(facts(reactivated=(woken(0.95, 0.8),)), rule)[0] is Verdict.PURIFIED
    found, words = verdict(facts(reactivated=(woken(0.95, 0.2),)), rule)
    assert found is Verdict.REJECTED
    assert "reactivates the parent's trigger for class 1: 95.0% of the hold-out, 20.0% w" in words
    for missing in (facts(), facts(reactivated=(woken(math.nan, 0.2),))):
        assert verdict(missing, rule)[0] is Verdict.REJECTED


@pytest.mark.parametrize(
    "broken",
    [
        facts(high=math.nan),
        facts(rates=(0.0, math.nan, 0.1)),
        facts(rates=(0.0, 0.1, math.nan)),
        facts(resampled=()),
        facts(relearned=()),
    ],
    ids=["rate", "lead", "last", "no-sample", "not-taught"],
)
def test_what_was_not_measured_is_no_proof(broken: PurificationFacts) -> None:
    assert verdict(broken)[0] is Verdict.REJECTED
    assert verdict(broken, ProofRule())[0] is Verdict.PURIFIED


def test_the_reason_why_it_was_not_measured_is_told() -> None:
    assert (
        "no time was left"
        in verdict(facts(resampled=(), unproved=("There was no time was left.",)))[1]
    )


def test_a_trigger_that_is_no_patch_needs_no_such_proof() -> None:
    found = facts(resampled=(), relearned=(), replayed=(an_asr(0.05, family="blend"),))

    assert verdict(found)[0] is Verdict.PURIFIED


def test_limits_are_read_and_refused_like_any_other() -> None:
    basic = {"policy": {"name": "x"}, "detectors": {"a": {}}}

    assert policy_from(basic).proof == ProofRule()
    assert policy_from({**basic, "proof": {"max_lead": 0.3}}).proof == ProofRule(max_lead=0.3)
    for wrong in (
        {"max_lead": math.nan},
        {"max_resampled": 2},
        {"max_resampled": True},
        {"wonder": 1},
    ):
        with pytest.raises(PolicyError, match=r"proof\.|unknown key"):
            policy_from({**basic, "proof": wrong})


def test_a_policy_without_limits_keeps_its_digest() -> None:
    plain = Policy(name="x")

    assert "proof" not in plain.to_dict()
    assert replace(plain, proof=BOTH).digest != plain.digest


def cost(before: int, after: int, of: int) -> tuple[Verdict, str]:
    """The verdict on a repair after which so many pictures are still answered rightly.

    In every class alike.
    """
    one, two = (
        Accuracy(overall=right / of, per_class=(right / of,) * 5, images=of)
        for right in (before, after)
    )
    return verdict(facts(acc_before=one, acc_after=two))


def test_a_loss_of_just_what_is_allowed_passes_and_one_picture_more_does_not() -> None:
    """363 / 450 - 354 / 450 is a little over 0.02 in floating point."""
    assert 363 / 450 - 354 / 450 > 0.02
    assert cost(363, 354, 450)[0] is Verdict.PURIFIED
    assert cost(363, 353, 450)[0] is Verdict.REJECTED
    assert "cost 2.2% of clean accuracy" in cost(363, 353, 450)[1]


def test_a_lead_of_just_what_is_allowed_passes() -> None:
    rule, taught = ProofRule(max_lead=0.1), facts(rates=(0.0, 0.1, 0.4)).relearned[0]
    at_limit = replace(taught, rivals=((0.0, 0.0, 0.3),))

    assert 0.4 - 0.3 > 0.1
    assert verdict(facts(relearned=(at_limit,)), rule)[0] is Verdict.PURIFIED
    assert (
        verdict(facts(relearned=(replace(at_limit, asr=(0.0, 0.1, 0.41)),)), rule)[0]
        is Verdict.REJECTED
    )


def test_a_refusal_says_how_many_draws_a_lead_is_the_mean_of() -> None:
    one = facts(rates=(0.0, 0.1, 0.9)).relearned[0]

    assert "on 10 images, over" in verdict(facts(relearned=(one,)), ProofRule(max_lead=0.1))[1]
    assert (
        "on 10 images, the mean of 2 draws, over"
        in verdict(facts(relearned=(replace(one, leads=(0.5, 0.9)),)), ProofRule(max_lead=0.1))[1]
    )


def on_suspects(obeyed: int, of: int = 60, fdr: float = 0.05) -> OnSuspects:
    low, high = wilson(obeyed, of)
    after = AsrEstimate(
        target=1,
        family="training-set",
        successes=obeyed,
        trials=of,
        estimate=obeyed / of,
        low=low,
        high=high,
    )
    return OnSuspects(before=replace(after, successes=of, estimate=1.0), after=after, fdr=fdr)


def test_accused_images_that_still_lead_to_their_label_reject() -> None:
    found, words = verdict(facts(suspects=(on_suspects(12),)))

    assert found is Verdict.REJECTED
    assert "12 of 60 accused training images that were kept for the proof still lead to" in words


def test_clean_images_among_the_accused_are_allowed_for_and_no_more() -> None:
    assert verdict(facts(suspects=(on_suspects(3, fdr=0.05),)))[0] is Verdict.PURIFIED
    assert verdict(facts(suspects=(on_suspects(3, fdr=0.0),)))[0] is Verdict.REJECTED
    assert verdict(facts(suspects=(on_suspects(0, of=12, fdr=0.1),)))[0] is Verdict.REJECTED
    assert verdict(facts(suspects=(on_suspects(0, fdr=math.nan),)))[0] is Verdict.REJECTED


def test_a_trigger_that_was_estimated_from_accused_images_must_not_work() -> None:
    weak, strong = (MomentTrigger(before=an_asr(0.98), after=an_asr(high)) for high in (0.05, 0.6))

    assert verdict(facts(moments=(weak,)))[0] is Verdict.PURIFIED
    found, words = verdict(facts(moments=(weak, strong)))
    assert found is Verdict.REJECTED
    assert "estimated from accused training images still works on 54.0%" in words


def test_a_patch_that_a_search_finds_from_it_must_not_be_ahead_of_its_siblings() -> None:
    def searched(high: float, natural: float | None) -> MomentTrigger:
        found = replace(an_asr(high), natural=natural)
        return MomentTrigger(before=an_asr(0.98), after=an_asr(0.05), searched=found)

    assert verdict(facts(moments=(searched(0.6, 0.5),)))[0] is Verdict.PURIFIED
    found, reasons = verdict(facts(moments=(searched(0.6, None),)))
    assert found is Verdict.REJECTED
    assert "a search finds a patch of the same size that works on 54.0%" in reasons
    assert verdict(facts(moments=(searched(0.6, 0.2),)))[0] is Verdict.REJECTED


def test_the_rates_of_a_purified_model_are_those_of_its_known_triggers() -> None:
    moment = MomentTrigger(before=an_asr(0.98), after=an_asr(0.09))
    decision = decide(POLICY, a_case(purification=facts(moments=(moment,))))
    only = decide(POLICY, a_case(purification=facts(replayed=(), suspects=(on_suspects(0),))))

    assert decision.facts.asr == moment.after
    assert decision.facts.purification is not None
    assert decision.facts.purification.moments == (moment,)
    assert only.facts.asr == on_suspects(0).after


def test_a_repair_without_a_training_set_is_written_as_before() -> None:
    plain = to_plain(facts())

    assert {"suspects", "moments"}.isdisjoint(plain)
    assert from_plain(PurificationFacts, plain) == facts()
    found = facts(suspects=(on_suspects(1),))
    assert from_plain(PurificationFacts, to_plain(found)) == found
