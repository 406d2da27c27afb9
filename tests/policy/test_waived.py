"""A waiver takes out one finding; everything else still counts, and nothing is made up for."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from guard.core.evidence import Evidence, Outcome
from guard.core.states import Verdict
from guard.core.waivers import Waiver
from guard.policy import Case, DetectorRule, decide
from tests.policy.making import (
    ARTIFACT,
    POLICY,
    VERSIONS,
    a_case,
    a_finding,
    a_purification,
    an_asr,
    an_evidence,
)

ACCUSING = an_evidence("a", a_finding(), seed=1)


def a_waiver(*items: Evidence, **changes: Any) -> Waiver:
    """Of what `ACCUSING` says about class 1."""
    made = Waiver(
        waiver_id="w",
        artifact=ARTIFACT,
        method="a",
        version=VERSIONS["a"],
        target=1,
        evidence=tuple(item.key for item in items or (ACCUSING,)),
        policy=POLICY.digest,
        reason="it is a property of the task",
        owner="rita",
        approver="sam",
        until=datetime(2027, 1, 1, tzinfo=UTC),
    )
    return replace(made, **changes)


def verdict(case: Case, *waivers: Waiver) -> Verdict:
    return decide(POLICY, replace(case, waivers=waivers)).verdict


def test_a_waived_finding_neither_rejects_nor_is_shown_as_the_accusation() -> None:
    case = a_case(ACCUSING)
    assert verdict(case) is Verdict.REJECTED

    decision = decide(POLICY, replace(case, waivers=(a_waiver(),)))

    assert decision.verdict is Verdict.CLEARED
    assert decision.facts.waivers == (a_waiver(),)
    assert (decision.facts.target, decision.facts.asr_upper) == (None, None)
    assert decision.facts.score == 0.9, "what was measured is not made milder"
    assert decision.facts.coverage == ("blend", "patch")


def test_a_natural_finding_that_was_waived_does_not_hold() -> None:
    item = an_evidence("a", a_finding(asr=an_asr(natural=0.95)), seed=1)
    assert verdict(a_case(item)) is Verdict.HELD

    assert verdict(a_case(item), a_waiver(item)) is Verdict.CLEARED


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact": "f" * 64},
        {"policy": "f" * 64},
        {"version": 1},
        {"method": "b"},
        {"method": "c"},
        {"target": 2},
        {"target": None},
        {"evidence": ("f" * 64,)},
        {"evidence": ()},
    ],
)
def test_a_waiver_of_anything_else_takes_nothing_out(changes: dict[str, Any]) -> None:
    decision = decide(POLICY, a_case(ACCUSING, waivers=(a_waiver(**changes),)))

    assert decision.verdict is Verdict.REJECTED
    assert decision.facts.waivers == ()


def test_a_new_version_of_the_method_voids_the_waiver() -> None:
    newer = replace(ACCUSING, version=3)
    case = a_case(newer, versions={**VERSIONS, "a": 3})

    assert verdict(case, a_waiver(newer, version=2)) is not Verdict.CLEARED


def test_the_same_finding_of_another_run_was_not_waived() -> None:
    assert verdict(a_case(ACCUSING, replace(ACCUSING, seed=2)), a_waiver()) is Verdict.REJECTED


def test_another_class_of_the_same_run_is_still_accused() -> None:
    item = an_evidence("a", a_finding(), a_finding(target=3, asr=an_asr(target=3)), seed=1)
    assert verdict(a_case(item), a_waiver(item)) is Verdict.REJECTED

    both = a_waiver(item), a_waiver(item, waiver_id="v", target=3)
    assert verdict(a_case(item), *both) is Verdict.CLEARED


def test_another_method_that_accuses_the_class_is_not_waived() -> None:
    other = an_evidence("b", a_finding(family="blend"), seed=1)

    assert verdict(a_case(ACCUSING, other), a_waiver()) is Verdict.REJECTED


def test_a_waiver_covers_no_run_that_is_missing_or_could_not_look() -> None:
    blind = an_evidence("a", a_finding(), outcome=Outcome.COULD_NOT_LOOK, seed=1, reason="Slow.")
    for evidence in ((an_evidence("b"), blind), (an_evidence("b"),), (ACCUSING,)):
        case = a_case(evidence=evidence)
        assert verdict(case, a_waiver(), a_waiver(blind)) is Verdict.INCONCLUSIVE


def test_where_a_policy_stops_early_a_waived_proof_is_none() -> None:
    policy = replace(POLICY, stop_early=True)
    case = a_case(evidence=(ACCUSING,))
    waiver = a_waiver(policy=policy.digest)

    assert decide(policy, replace(case, waivers=(waiver,))).verdict is Verdict.INCONCLUSIVE


def test_a_number_that_is_not_finite_is_not_waived() -> None:
    item = an_evidence("a", a_finding(score=float("nan")), seed=1)

    assert verdict(a_case(item), a_waiver(item)) is Verdict.INCONCLUSIVE


def test_the_p_values_of_a_waived_finding_do_not_hold_the_model_either() -> None:
    numbers = {"p_value": 1e-6, "p_class_1": 1e-6, "p_class_2": 0.5, "classes": 5.0}
    accused = an_evidence("a", a_finding(numbers={**numbers, "p_class": 1e-6}), seed=1)
    table = an_evidence(
        "a", a_finding(suspicious=False, score=0.1, target=0, asr=None, numbers=numbers), seed=2
    )
    other = an_evidence(
        "b",
        a_finding(
            family="blend",
            suspicious=False,
            target=0,
            asr=None,
            numbers={"p_value": 0.6, "p_class": 0.6},
        ),
        seed=1,
    )
    case = a_case(accused, other)
    assert verdict(case, a_waiver(accused)) is Verdict.CLEARED
    # Another run of the method was not waived, and finds the class as unusual.
    assert verdict(a_case(accused, table, other), a_waiver(accused)) is Verdict.HELD
    both = an_evidence("a", *accused.findings, *table.findings, seed=1)
    quiet = replace(table.findings[0], numbers={"p_class_1": 1e-6, "classes": 5.0})
    same_run = replace(both, findings=(accused.findings[0], quiet))
    assert verdict(a_case(same_run, other), a_waiver(same_run)) is Verdict.CLEARED


def test_a_purified_model_is_held_to_its_limits_whatever_was_waived() -> None:
    bad = a_purification(replayed=(an_asr(0.9),))
    case = a_case(ACCUSING, purification=bad)

    assert verdict(case, a_waiver()) is Verdict.REJECTED
    fine = replace(case, purification=a_purification())
    assert verdict(fine, a_waiver()) is Verdict.PURIFIED


def test_a_policy_that_asks_another_detector_does_not_know_the_waiver() -> None:
    policy = replace(POLICY, detectors={"b": DetectorRule()})
    waiver = a_waiver(policy=policy.digest)

    assert decide(policy, a_case(ACCUSING, waivers=(waiver,))).facts.waivers == ()
