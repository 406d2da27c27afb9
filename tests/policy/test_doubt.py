"""`[repair]`: what is held or would pass, and is repaired though no trigger is proven."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import PolicyError
from guard.core.states import Verdict
from guard.policy import Calibration, Case, Decision, DefenseRule, Policy, decide, load_policy
from guard.policy.load import policy_from
from guard.policy.rules import RepairRule
from tests.policy import population
from tests.policy.making import POLICY, a_case, a_finding, a_purification, an_asr, an_evidence

BLIND = (*POLICY.defenses, DefenseRule(name="shared_distillation", blind=True))
DATA = {
    "policy": {"name": "mine"},
    "detectors": {"patch_inversion": {}},
    "purify": {"defenses": [{"name": "shared_distillation", "blind": True}]},
}


def decided(case: Case, when: str, level: float = 0.05, **fields: Any) -> Decision:
    rule = RepairRule(when=when, level=level)
    return decide(replace(POLICY, defenses=BLIND, repair=rule, **fields), case)


def with_p(p: float, name: str = "p_value") -> Case:
    """What is cleared by the default, with one p value."""
    return a_case(an_evidence("a", a_finding(suspicious=False, score=0.2, numbers={name: p})))


def ruled(decision: Decision) -> tuple[Verdict, bool, bool]:
    return decision.verdict, decision.purify, decision.blind


@pytest.mark.parametrize("case", [a_case(), with_p(1e-9)])
def test_by_default_what_is_not_rejected_is_not_repaired(case: Case) -> None:
    assert ruled(decided(case, "rejected")) == (Verdict.CLEARED, False, False)


@pytest.mark.parametrize("name", ["p_value", "p_ranking"])
@pytest.mark.parametrize(
    ("p", "verdict"), [(0.051, Verdict.CLEARED), (0.05, Verdict.HELD), (0.0, Verdict.HELD)]
)
def test_what_would_pass_with_a_small_p_is_held_for_a_repaired_copy(
    name: str, p: float, verdict: Verdict
) -> None:
    doubted = verdict is Verdict.HELD
    decision = decided(with_p(p, name), "doubted")

    assert ruled(decision) == (verdict, doubted, doubted)
    assert ("not beyond doubt" in decision.reasons[0]) == doubted


def test_the_p_of_several_methods_together_is_a_doubt_as_well() -> None:
    def numbers(p: float) -> dict[str, float]:
        return {"p_class": p, "classes": 5, "p_value": 0.9}

    case = a_case(
        *(
            an_evidence(method, a_finding(suspicious=False, score=0.1, numbers=numbers(0.03)))
            for method in ("a", "b")
        )
    )

    decision = decided(case, "doubted")

    assert ruled(decision) == (Verdict.HELD, True, True)
    assert "a and b together on class 1" in decision.reasons[0]
    assert decided(case, "doubted", level=0.01).verdict is Verdict.CLEARED


def test_without_any_p_value_nothing_is_beyond_doubt() -> None:
    decision = decided(a_case(), "doubted")

    assert ruled(decision) == (Verdict.HELD, True, True)
    assert "no method gave a p value" in decision.reasons[0]


@pytest.mark.parametrize("case", [a_case(), with_p(1.0)])
def test_always_serves_no_upload_itself(case: Case) -> None:
    assert ruled(decided(case, "always")) == (Verdict.HELD, True, True)


@pytest.mark.parametrize("when", ["doubted", "always"])
def test_what_is_held_or_rejected_without_a_proven_trigger_is_repaired_and_keeps_its_verdict(
    when: str,
) -> None:
    natural = a_case(an_evidence("a", a_finding(asr=an_asr(natural=0.97))))
    unmeasured = a_case(
        an_evidence("a", a_finding(asr=None)), an_evidence("b", a_finding(asr=None))
    )

    assert ruled(decided(natural, "rejected")) == (Verdict.HELD, False, False)
    assert ruled(decided(natural, when)) == (Verdict.HELD, True, True)
    assert ruled(decided(unmeasured, "rejected")) == (Verdict.REJECTED, False, False)
    assert ruled(decided(unmeasured, when)) == (Verdict.REJECTED, True, True)


@pytest.mark.parametrize("when", ["doubted", "always"])
def test_a_proven_trigger_guides_the_repair_as_ever(when: str) -> None:
    case = a_case(an_evidence("a", a_finding()))

    assert decided(case, when) == decided(case, "rejected")
    assert ruled(decided(case, when)) == (Verdict.REJECTED, True, False)


@pytest.mark.parametrize("when", ["doubted", "always"])
@pytest.mark.parametrize(
    "change",
    [
        {"evidence": ()},  # nothing could be vetted, so that no copy could be either
        {"purification": a_purification()},  # a copy is not repaired again
        {"purification": a_purification(blind=True, replayed=())},
    ],
)
def test_what_could_not_be_vetted_and_what_was_repaired_are_decided_as_ever(
    when: str, change: dict[str, Any]
) -> None:
    case = replace(with_p(0.01), **change)

    assert decided(case, when) == decided(case, "rejected")
    assert not decided(case, when).purify


def test_where_a_person_looks_at_everything_nothing_is_repaired_unasked() -> None:
    decision = decided(a_case(), "always", review_always=True)

    assert ruled(decision) == (Verdict.HELD, False, False)


def test_a_rule_without_a_defense_for_it_repairs_nothing() -> None:
    policy = replace(POLICY, repair=RepairRule(when="always"))

    assert decide(policy, a_case()).verdict is Verdict.CLEARED


def test_the_verdict_on_a_copy_states_that_no_trigger_was_proven() -> None:
    case = with_p(0.5)
    copy = replace(case, purification=a_purification(blind=True, replayed=()))

    decision = decided(copy, "always")

    assert decision.verdict is Verdict.PURIFIED
    assert decision.facts.purification is not None
    assert decision.facts.purification.blind


def test_a_policy_names_when_and_the_defenses_for_it() -> None:
    policy = policy_from({**DATA, "repair": {"when": "doubted", "level": 0.2}})

    assert policy.repair == RepairRule(when="doubted", level=0.2)
    assert Policy.from_dict(policy.to_dict()) == policy
    assert policy.digest != policy_from(DATA).digest


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"repair": {"when": "sometimes"}}, "repair.when must be one of"),
        ({"repair": {"when": "always", "level": 0.0}}, "repair.level"),
        ({"repair": {"when": "always", "otherwise": "lost"}}, "repair.otherwise must be one of"),
        ({"repair": {"when": "always"}, "purify": {}}, "blind = true"),
        (
            {"purify": {"defenses": [{"name": "sau", "blind": True, "informed": True}]}},
            "cannot be both",
        ),
        (
            {
                "purify": {
                    "defenses": [{"name": "x", "blind": True}, {"name": "y", "after": "x"}],
                }
            },
            "with the same `informed` and `blind`",
        ),
    ],
)
def test_a_rule_that_could_not_be_obeyed_is_refused(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence):
        policy_from({**DATA, **data})


@pytest.mark.parametrize("otherwise", ["held", "served"])
def test_where_no_copy_passed_the_upload_is_judged_by_the_other_rules_if_the_policy_says_so(
    otherwise: str,
) -> None:
    served = otherwise == "served"
    rule = RepairRule(when="always", otherwise=otherwise)
    policy = replace(POLICY, defenses=BLIND, repair=rule)
    suspicious = a_case(an_evidence("a", a_finding(), seed=1))

    passes = decide(policy, replace(a_case(), unrepaired=True))
    rejected = decide(policy, replace(suspicious, unrepaired=True))

    assert ruled(passes) == (
        (Verdict.CLEARED, False, False) if served else (Verdict.HELD, True, True)
    )
    assert any("No repaired copy passed" in why for why in passes.reasons) == served
    assert rejected.verdict is decide(POLICY, suspicious).verdict
    assert rejected.verdict is not Verdict.CLEARED
    assert not (served and rejected.purify)


def test_the_default_of_an_upload_without_a_copy_changes_no_digest() -> None:
    given = {"when": "always"}

    assert "otherwise" not in policy_from({**DATA, "repair": given}).to_dict()["repair"]
    served = policy_from({**DATA, "repair": {**given, "otherwise": "served"}})
    assert Policy.from_dict(served.to_dict()) == served
    assert served.digest != policy_from({**DATA, "repair": given}).digest


def test_policies_without_the_rule_keep_their_digests() -> None:
    for name in ("default", "ensemble", "text-to-graph"):
        rules = load_policy(Path(name)).to_dict()

        assert "repair" not in rules
        assert not any("blind" in rule for rule in rules["defenses"])


def test_the_p_of_a_ranking_is_its_place_among_honest_models_where_these_were_measured() -> None:
    """Nine honest models all have a smaller p than 5 %, so that one of 4 % is nothing unusual."""
    honest = {"patches": tuple(0.001 * (place + 1) for place in range(9))}
    blind = DefenseRule(name="shared_distillation", blind=True)

    def ruled_by(calibration: Calibration, p: float) -> Decision:
        policy = replace(
            population.calibrated(calibration),
            defenses=(blind,),
            repair=RepairRule(when="doubted", level=0.1),
        )
        return decide(
            policy,
            population.case(
                population.evidence(
                    "patches", population.finding("patch", 0.9, fold=1.0, p_ranking=p)
                ),
                population.evidence("blends", population.finding("blend", 0.9)),
            ),
        )

    measured, plain = population.a_calibration(rankings=honest), population.a_calibration()

    assert ruled(ruled_by(plain, 0.04)) == (Verdict.HELD, True, True)
    assert ruled(ruled_by(measured, 0.04)) == (Verdict.CLEARED, False, False)
    held = ruled_by(measured, 0.0005)
    assert ruled(held) == (Verdict.HELD, True, True)
    assert "patches among 9 honest models, which is never under 1/10, is 0.1" in held.reasons[0]
