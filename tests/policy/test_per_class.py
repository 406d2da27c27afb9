"""What methods say of one class together.

Its level, that agreement counts and noise does not, and what it may do.
"""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from guard.core.evidence import Evidence, Finding
from guard.core.pvalues import fisher, sidak
from guard.core.states import Verdict
from guard.policy import CombinationRule, decide
from guard.policy.features import features
from guard.policy.per_class import accord, by_class
from tests.policy.population import POLICY, case, evidence, finding

CLASSES = 10


def speaking(method: str, p: dict[int, float], **fields: Any) -> Evidence:
    """One quiet finding a class."""
    findings = [
        replace(
            finding("patch", 0.6, target=target),
            suspicious=False,
            asr=None,
            numbers={"p_value": 0.6, "p_class": value, "classes": float(CLASSES)},
        )
        for target, value in p.items()
    ]
    return replace(evidence(method, *findings), **fields)


def table(method: str, p: dict[int, float]) -> Evidence:
    """All classes in one finding that accuses nobody."""
    numbers = {f"p_class_{target}": value for target, value in p.items()} | {
        "classes": float(CLASSES)
    }
    return evidence(
        method,
        Finding(
            family="blend",
            target=None,
            suspicious=False,
            score=0.0,
            statement="So it is.",
            numbers=numbers,
        ),
    )


def test_two_methods_that_find_one_class_unusual_are_sure_of_it() -> None:
    one = {0: 0.02, 1: 0.004, 2: 0.5, 3: 0.7}
    other = {0: 0.9, 1: 0.003, 2: 0.001, 3: 0.4}
    found = accord([speaking("patches", one), table("blends", other)])

    assert found is not None
    assert (found.target, found.methods) == (1, ("blends", "patches"))
    assert found.p == pytest.approx(
        1 - (1 - stats.combine_pvalues([0.004, 0.003], method="fisher").pvalue) ** CLASSES
    )


def test_alone_a_method_is_no_accord_and_silence_counts_against_a_class() -> None:
    assert accord([speaking("patches", {0: 1e-9})]) is None
    both = accord([speaking("patches", {0: 1e-3}), speaking("blends", {1: 0.5})])
    assert both is not None
    assert (both.target, both.methods) == (0, ("blends", "patches"))
    assert both.p == pytest.approx(sidak(fisher([1e-3, 1.0]), CLASSES))


def test_another_run_of_a_method_can_only_add_suspicion() -> None:
    runs = [speaking("patches", {0: 0.01, 1: 0.9}), speaking("patches", {0: 0.5, 1: 0.2}, seed=1)]

    assert by_class(runs) == {"patches": {0: 0.01, 1: 0.2}}


def test_what_is_not_a_number_says_nothing() -> None:
    assert by_class([speaking("patches", {0: math.nan, 1: 0.3})]) == {"patches": {1: 0.3}}


def test_it_keeps_its_level_where_methods_err_independently() -> None:
    rng, runs, hits = random.Random(5), 3000, 0
    for _ in range(runs):
        said = [
            table(method, {row: rng.random() for row in range(CLASSES)})
            for method in ("patches", "blends")
        ]
        found = accord(said)
        assert found is not None
        hits += found.p <= 0.05

    assert hits / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert hits / runs >= 0.04


def test_a_class_that_only_all_methods_together_find_unusual_is_held_for_a_person() -> None:
    said = (speaking("patches", {1: 0.004, 2: 0.5}), table("blends", {1: 0.003, 2: 0.4}))
    decision = decide(POLICY, case(*said))

    assert decision.verdict is Verdict.HELD
    assert "blends, patches all find class 1 unusual" in decision.reasons[0]
    never = replace(POLICY, combination=CombinationRule(class_level=0.0))
    assert decide(never, case(*said)).verdict is Verdict.CLEARED
    assert features(said)["class.p"] > 2


@pytest.mark.parametrize("target", [1, 3])
def test_a_measured_trigger_is_proven_by_what_is_said_of_its_own_class_alone(target: int) -> None:
    """All p values together would not prove it: one is small among many."""
    quiet = [finding("warp", 0.7), finding("filter", 0.9), finding("blend", 0.8)]
    others = table("blends", {target: 0.0005})
    hit = finding("patch", 0.009, hits=265)
    hit = replace(hit, numbers={**hit.numbers, "p_class": 0.0005, "classes": 10.0})
    decision = decide(
        POLICY, case(evidence("patches", hit), replace(others, findings=(*others.findings, *quiet)))
    )

    assert decision.verdict is (Verdict.REJECTED if target == hit.target else Verdict.HELD)
