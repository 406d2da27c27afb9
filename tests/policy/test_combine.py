"""Several methods without reference models.

Levels on simulated nulls, the three answers, and abstention.
"""

import dataclasses
import math
import random

import pytest

from guard.core.evidence import Evidence
from guard.core.states import Verdict
from guard.policy import CombinationRule, DetectorRule, Policy, decide
from guard.policy.asr_bounds import overall
from guard.policy.combine import combine
from guard.policy.features import features
from tests.policy.population import FACTS, POLICY, case, evidence, finding, model

replace = dataclasses.replace


def test_one_look_is_bounded_by_its_own_interval_and_broken_numbers_by_nothing() -> None:
    one = finding("patch", 0.5, hits=100).asr
    assert one is not None

    assert overall([one]) == one.high
    assert overall([one, replace(one, high=math.nan)]) == 1.0
    assert overall([]) == 1.0


def test_a_proven_trigger_is_rejected_and_worth_a_repair() -> None:
    bad = (
        evidence("patches", finding("patch", 1e-6, hits=265)),
        evidence("blends", finding("blend", 0.4)),
    )
    decision = decide(POLICY, case(*bad))

    assert decision.verdict is Verdict.REJECTED
    assert decision.facts.target == 1
    assert decision.facts.asr_upper is not None
    assert decision.facts.asr is not None
    assert decision.facts.asr.high < decision.facts.asr_upper <= 1.0


def test_the_attackers_own_trigger_may_work_better_than_the_recovered_one() -> None:
    bad = evidence("patches", finding("patch", 1e-6, hits=240))
    upper = decide(
        Policy(name="one", detectors={"patches": DetectorRule(params={"steps": 5})}), case(bad)
    ).facts.asr_upper

    assert upper == pytest.approx(bad.findings[0].asr.high + 0.04)


def test_one_small_p_among_many_is_suspicious_but_not_proven() -> None:
    items = (
        evidence("patches", finding("patch", 0.009, hits=265)),
        evidence("blends", finding("blend", 0.6), finding("warp", 0.7)),
    )
    decision = decide(POLICY, case(*items))

    assert decision.verdict is Verdict.HELD
    assert "not proven" in decision.reasons[1]
    assert "combined p" in decision.reasons[1]


def test_with_one_detector_there_is_nothing_to_combine() -> None:
    """A policy that names one method decides as it did before there were others."""
    alone = Policy(name="one", detectors={"patches": DetectorRule(params={"steps": 5})})
    decision = decide(alone, case(evidence("patches", finding("patch", 0.0099, hits=265))))

    assert decision.verdict is Verdict.REJECTED
    assert (
        decide(alone, case(evidence("patches", finding("patch", 1e-9, suspicious=False)))).verdict
        is Verdict.CLEARED
    )


def test_two_methods_that_accuse_one_class_need_no_trigger() -> None:
    def accuse(one: int, other: int) -> Verdict:
        items = (
            evidence("patches", replace(finding("patch", 0.009, target=one), asr=None)),
            evidence("blends", replace(finding("blend", 0.009, target=other), asr=None)),
        )
        decision = decide(
            replace(POLICY, combination=CombinationRule(reject_level=0.0001)), case(*items)
        )
        assert decision.facts.asr_upper == 1.0  # nothing bounds a trigger that was not recovered
        assert decision.purify is False
        return decision.verdict

    assert accuse(3, 3) is Verdict.REJECTED
    assert accuse(3, 4) is Verdict.HELD


def test_a_mapping_of_all_classes_is_proven_by_itself() -> None:
    mapping = replace(finding("all_to_all", 0.009), target="all-to-all", asr=None)

    assert (
        decide(POLICY, case(evidence("patches", mapping), evidence("blends"))).verdict
        is Verdict.REJECTED
    )


def test_small_p_values_without_a_flag_hold_unless_the_policy_does_not_want_it() -> None:
    items = (
        evidence("patches", finding("patch", 1e-7, suspicious=False)),
        evidence("blends", finding("warp", 0.5)),
    )
    ignoring = replace(POLICY, combination=CombinationRule(hold_level=0.0))

    assert decide(POLICY, case(*items)).verdict is Verdict.HELD
    assert decide(ignoring, case(*items)).verdict is Verdict.CLEARED


def blind(family: str) -> Evidence:
    return evidence(
        "blends",
        replace(finding(family, 1e-9, suspicious=False, informative=0.0), target=None, asr=None),
        families=(family,),
    )


def test_families_that_were_looked_at_in_vain_are_not_covered_and_most_of_them_are_no_pass() -> (
    None
):
    patches = evidence("patches", finding("patch", 0.4))
    half = decide(POLICY, case(patches, blind("blend")))
    most = decide(POLICY, case(patches, blind("blend"), blind("warp")))

    assert (half.verdict, half.facts.coverage) == (Verdict.CLEARED, ("patch",))
    assert most.verdict is Verdict.INCONCLUSIVE
    assert "blend, warp" in most.reasons[0]


def test_a_family_in_vain_gives_no_p_value_and_another_run_may_inform() -> None:
    seen = evidence("blends", finding("blend", 0.3), families=("blend",), seed=1)

    assert combine([blind("blend")]).uninformative == ("blend",)
    assert "blends.blend.p" not in features([blind("blend")])
    assert combine([blind("blend"), seen]).covered == ("blend",)


@pytest.mark.row(11)
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"cleanset": replace(FACTS, classes=4)}, "4 classes"),
        ({"cleanset": replace(FACTS, search=30, calibration=9, holdout=10)}, "49 images"),
        ({"accuracy": replace(case().accuracy, per_class=(0.0, 0.0, *(0.95,) * 8))}, "class order"),  # type: ignore[type-var]
    ],
)
def test_what_cannot_be_judged_is_inconclusive_with_its_reason(
    fields: dict[str, object], word: str
) -> None:
    decision = decide(POLICY, case(evidence("patches"), evidence("blends"), **fields))

    assert decision.verdict is Verdict.INCONCLUSIVE
    assert any(word in reason for reason in decision.reasons)


def test_honest_models_are_rarely_rejected_without_references() -> None:
    rng = random.Random(11)
    verdicts = [decide(POLICY, case(*model(rng))).verdict for _ in range(2000)]

    assert sum(verdict is Verdict.REJECTED for verdict in verdicts) <= 0.01 * len(verdicts)


SEVERITY = {Verdict.CLEARED: 0, Verdict.HELD: 1, Verdict.REJECTED: 2, Verdict.INCONCLUSIVE: 2}


def test_a_smaller_p_value_never_makes_the_answer_milder() -> None:
    rng = random.Random(5)
    for _ in range(300):
        items = model(rng, bad=rng.random() < 0.5)
        harsher = []
        for item in items:
            findings = tuple(
                replace(
                    one,
                    numbers={**one.numbers, "p_value": one.numbers["p_value"] * rng.random()},
                    score=min(1.0, one.score + 0.1),
                    suspicious=one.suspicious or rng.random() < 0.2,
                )
                for one in item.findings
            )
            harsher.append(replace(item, findings=findings))
        before, after = decide(POLICY, case(*items)), decide(POLICY, case(*harsher))

        assert SEVERITY[after.verdict] >= SEVERITY[before.verdict], (before, after)
