"""decide(): each rule alone, and the direction in which evidence may push."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.attest.statement import Issue, PolicyName, verdict_statement
from guard.core.digests import canonical_json
from guard.core.evidence import Accuracy, Evidence, Outcome
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.policy import Case, DetectorRule, Policy, ProofRule, decide, settled
from tests.policy.making import (
    ACCURACY,
    ARTIFACT,
    CLEANSET,
    FACTS,
    PARENT,
    POLICY,
    a_case,
    a_finding,
    a_purification,
    an_asr,
    an_evidence,
)

NOT_FINITE = [math.nan, math.inf, -math.inf]
replace = dataclasses.replace


def without(case: Case, method: str) -> tuple[Evidence, ...]:
    return tuple(item for item in case.evidence if item.method != method)


def test_nothing_suspicious_is_cleared_within_a_coverage_and_under_a_policy() -> None:
    decision = decide(POLICY, a_case())

    assert decision.verdict is Verdict.CLEARED
    assert decision.reasons == (
        "Cleared under policy strict version 4 with coverage blend, patch.",
    )
    assert (decision.facts.score, decision.facts.coverage, decision.facts.target) == (
        0.2,
        ("blend", "patch"),
        None,
    )
    assert (decision.purify, decision.natural_trojan) == (False, False)
    assert decision.expires_after_seconds == 30 * 86400


@pytest.mark.parametrize("detectors", [{}, {"a": DetectorRule(required=False)}])
def test_a_policy_that_requires_nothing_clears_nothing(detectors: dict[str, DetectorRule]) -> None:
    decision = decide(replace(POLICY, detectors=detectors), a_case())

    assert decision.verdict is Verdict.INCONCLUSIVE
    assert "nothing was checked" in decision.reasons[0]


def test_a_policy_made_of_defaults_clears_nothing() -> None:
    assert decide(Policy(name="empty"), a_case()).verdict is Verdict.INCONCLUSIVE


@pytest.mark.row(11)
@pytest.mark.threat("B06")
@pytest.mark.parametrize("method", ["a", "b"])
def test_a_required_detector_that_is_missing_or_blind_is_inconclusive(method: str) -> None:
    case = a_case()
    blind = an_evidence(method, outcome=Outcome.COULD_NOT_LOOK, reason="It ran out of time.")
    missing = decide(POLICY, replace(case, evidence=without(case, method)))
    failed = decide(POLICY, replace(case, evidence=(*without(case, method), blind)))

    assert missing.verdict is failed.verdict is Verdict.INCONCLUSIVE
    assert "no evidence" in missing.reasons[0]
    assert failed.reasons == (
        f"The required detector {method} could not look: It ran out of time.",
    )


def test_a_detector_that_failed_once_and_looked_once_has_looked() -> None:
    blind = an_evidence("b", outcome=Outcome.COULD_NOT_LOOK, reason="x", seed=1)

    assert decide(POLICY, a_case(blind)).verdict is Verdict.CLEARED


@pytest.mark.row(20)
@pytest.mark.parametrize(
    "fields",
    [
        {"artifact": PARENT},
        {"cleanset": PARENT},
        {"version": 1},
        {"version": 3},
        {"method": "c"},
        {"parameters": {"steps": 6}},
        {"parameters": {}},
    ],
)
def test_evidence_on_something_else_or_from_another_version_does_not_count(
    fields: dict[str, Any],
) -> None:
    case = a_case()
    item = replace(an_evidence("a"), **fields)

    assert (
        decide(POLICY, replace(case, evidence=(*without(case, "a"), item))).verdict
        is Verdict.INCONCLUSIVE
    )


def test_with_all_parameters_known_every_one_must_agree() -> None:
    full = {"steps": 5, "rate": 0.1, "sizes": (1, 2)}
    stored = {**full, "sizes": [1, 2]}
    case = a_case(parameters={"a": full})

    def verdict(parameters: dict[str, Any]) -> Verdict:
        item = an_evidence("a", parameters=parameters)
        return decide(POLICY, replace(case, evidence=(*without(case, "a"), item))).verdict

    assert verdict(stored) is Verdict.CLEARED
    assert verdict({**stored, "rate": 0.2}) is Verdict.INCONCLUSIVE
    assert verdict({**stored, "more": 1}) is Verdict.INCONCLUSIVE
    assert verdict({"steps": 5}) is Verdict.INCONCLUSIVE


def test_a_version_nobody_told_of_is_no_present_version() -> None:
    assert decide(POLICY, a_case(versions={})).verdict is Verdict.INCONCLUSIVE


def test_a_suspicious_finding_whose_trigger_works_is_rejected_and_worth_a_repair() -> None:
    decision = decide(POLICY, a_case(an_evidence("a", a_finding(), seed=1)))

    assert decision.verdict is Verdict.REJECTED
    assert (decision.purify, decision.facts.target, decision.facts.score, decision.facts.asr) == (
        True,
        1,
        0.9,
        an_asr(),
    )
    assert "over the limit of 10%" in decision.reasons[0]


def test_no_defense_or_no_measured_trigger_means_no_repair() -> None:
    suspicious = a_case(an_evidence("a", a_finding(), seed=1))
    unmeasured = decide(POLICY, a_case(an_evidence("a", a_finding(asr=None), seed=1)))

    assert decide(replace(POLICY, defenses=()), suspicious).purify is False
    assert (unmeasured.verdict, unmeasured.purify) == (Verdict.HELD, False)
    assert "could not be measured" in unmeasured.reasons[0]


@pytest.mark.parametrize(("target", "says"), [(1, "another one did"), (3, "for class 3 was")])
def test_no_reasons_give_an_asr_and_say_that_none_could_be_measured(target: int, says: str) -> None:
    silent = an_evidence("b", a_finding(asr=None, target=target), parameters={})

    decision = decide(POLICY, a_case(silent, an_evidence("a", a_finding(), seed=1)))

    sentences = " ".join(decision.reasons)
    assert "its ASR is" in sentences
    assert "could not be measured" not in sentences
    assert says in sentences


def test_the_asr_shown_is_a_measured_one_of_the_accused_class_whoever_accuses_loudest() -> None:
    silent = an_evidence("b", a_finding(score=1.0, asr=None), parameters={})
    other = an_evidence(
        "a", a_finding(score=0.95, target=3, asr=an_asr(0.4, target=3)), a_finding(score=0.8)
    )
    mild = an_evidence("b", a_finding(score=0.45, suspicious=False, asr=None), parameters={})

    assert decide(POLICY, a_case(silent, other)).facts.asr == an_asr()
    assert (
        decide(POLICY, a_case(silent)).facts.asr is None
    )  # the mild patch of class 0 is not what is accused
    cleared = decide(POLICY, a_case(mild))
    assert (cleared.facts.asr, cleared.facts.natural_trigger) == (None, an_asr())
    assert decide(POLICY, a_case(silent, other)).facts.natural_trigger is None


def test_a_suspicious_finding_whose_trigger_hardly_works_is_held_not_cleared() -> None:
    at, over = (
        decide(POLICY, a_case(an_evidence("a", a_finding(asr=an_asr(high)), seed=1)))
        for high in (0.10, 0.1000001)
    )

    assert (at.verdict, over.verdict) == (Verdict.HELD, Verdict.REJECTED)
    assert at.purify is False
    both = decide(
        POLICY, a_case(an_evidence("a", a_finding(asr=an_asr(0.05)), a_finding(), seed=1))
    )
    assert both.verdict is Verdict.REJECTED


@pytest.mark.threat("B07")
def test_running_again_with_another_seed_does_not_wash_a_finding_away() -> None:
    """B07: the worst of all runs counts."""
    runs = [an_evidence("a", seed=seed) for seed in range(1, 6)]
    bad = an_evidence("a", a_finding(score=0.1), seed=9)

    assert decide(POLICY, a_case(*runs, bad)).verdict is Verdict.REJECTED


def test_an_optional_detector_may_be_silent_but_not_overheard() -> None:
    policy = replace(POLICY, detectors={**POLICY.detectors, "c": DetectorRule(required=False)})

    assert decide(policy, a_case()).verdict is Verdict.CLEARED
    assert decide(policy, a_case(an_evidence("c", a_finding()))).verdict is Verdict.REJECTED


def test_a_method_outside_the_policy_decides_nothing() -> None:
    """Arriving is not acting: a method in evaluation leaves evidence and no verdict."""
    assert decide(POLICY, a_case(an_evidence("c", a_finding()))) == decide(POLICY, a_case())


@pytest.mark.parametrize(
    ("action", "verdict"), [("held", Verdict.HELD), ("rejected", Verdict.REJECTED)]
)
def test_a_natural_trojan_does_what_the_policy_says(action: str, verdict: Verdict) -> None:
    natural = a_finding(asr=an_asr(natural=0.9))
    decision = decide(replace(POLICY, natural=action), a_case(an_evidence("a", natural, seed=1)))

    assert (decision.verdict, decision.natural_trojan, decision.purify) == (verdict, True, False)
    assert "sibling class reaches 90.0%" in decision.reasons[0]


def test_one_natural_trojan_does_not_excuse_another_finding() -> None:
    natural, planted = a_finding(asr=an_asr(natural=0.9), score=0.99), a_finding(score=0.3)
    for evidence in (
        (an_evidence("a", natural, planted, seed=1),),
        (an_evidence("a", natural, seed=1), an_evidence("a", planted, seed=2)),
    ):
        assert decide(POLICY, a_case(*evidence)).verdict is Verdict.REJECTED


@pytest.mark.parametrize("natural", [None, 0.1, math.nan])
def test_what_siblings_do_not_clearly_match_is_no_natural_trojan(natural: float | None) -> None:
    decision = decide(
        POLICY, a_case(an_evidence("a", a_finding(asr=an_asr(natural=natural)), seed=1))
    )

    assert decision.verdict in {Verdict.REJECTED, Verdict.INCONCLUSIVE}


@pytest.mark.threat("B04")
@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"per_class": 20, "holdout": 100}, Verdict.CLEARED),
        ({"per_class": 19}, Verdict.INCONCLUSIVE),
        ({"holdout": 99}, Verdict.INCONCLUSIVE),
        ({"per_class": 0}, Verdict.INCONCLUSIVE),
    ],
)
def test_too_small_a_clean_set_is_inconclusive(fields: dict[str, int], verdict: Verdict) -> None:
    assert decide(POLICY, a_case(cleanset=replace(FACTS, **fields))).verdict is verdict


@pytest.mark.parametrize(
    "accuracy",
    [
        None,
        replace(ACCURACY, overall=0.39),
        replace(ACCURACY, overall=math.nan),
        replace(ACCURACY, per_class=()),
        replace(ACCURACY, per_class=(0.9, math.nan, 1.0, 0.9, 0.9)),
        replace(ACCURACY, per_class=(0.9, 0.9)),
    ],
)
def test_a_model_that_is_no_good_or_was_not_measured_is_inconclusive(
    accuracy: Accuracy | None,
) -> None:
    assert decide(POLICY, a_case(accuracy=accuracy)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("classes", "least"), [(5, 0.4), (10, 0.2), (1000, 0.002)])
def test_a_model_must_be_right_twice_as_often_as_chance(classes: int, least: float) -> None:
    facts = replace(FACTS, classes=classes)

    def verdict(overall: float) -> Verdict:
        accuracy = Accuracy(overall=overall, per_class=(overall,) * classes, images=90)
        return decide(POLICY, a_case(cleanset=facts, accuracy=accuracy)).verdict

    assert (verdict(least + 1e-9), verdict(least - 1e-9)) == (Verdict.CLEARED, Verdict.INCONCLUSIVE)


def test_a_policy_may_want_a_person_to_look_at_everything() -> None:
    policy = replace(POLICY, review_always=True)

    assert decide(policy, a_case()).verdict is Verdict.HELD
    assert decide(policy, a_case(purification=a_purification())).verdict is Verdict.HELD
    assert decide(policy, a_case(an_evidence("a", a_finding(), seed=1))).verdict is Verdict.REJECTED


def test_a_repair_that_keeps_accuracy_and_kills_the_trigger_is_purified() -> None:
    decision = decide(POLICY, a_case(purification=a_purification()))

    assert decision.verdict is Verdict.PURIFIED
    assert decision.reasons == (
        "Purified by sau and cleared under policy strict version 4 with coverage blend, patch.",
    )


@pytest.mark.row(22)
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (
            {"acc_after": Accuracy(overall=0.92, per_class=(0.9, 0.95, 1.0, 0.9, 0.9), images=90)},
            "clean accuracy",
        ),
        (
            {"acc_after": Accuracy(overall=0.94, per_class=(0.79, 0.95, 1.0, 0.9, 0.9), images=90)},
            "class 0",
        ),
        (
            {
                "acc_after": Accuracy(
                    overall=math.nan, per_class=(0.9, 0.95, 1.0, 0.9, 0.9), images=90
                )
            },
            "clean accuracy",
        ),
        (
            {
                "acc_after": Accuracy(
                    overall=0.94, per_class=(0.9, math.nan, 1.0, 0.9, 0.9), images=90
                )
            },
            "class 1",
        ),
        ({"acc_after": Accuracy(overall=0.94, per_class=(0.9,), images=90)}, "same classes"),
        (
            {
                "acc_before": Accuracy(
                    overall=math.nan, per_class=(0.9, 0.9, 0.9, 0.9, 0.9), images=90
                )
            },
            "clean accuracy",
        ),
        ({"replayed": (an_asr(0.05), an_asr(0.11))}, "still works"),
        ({"replayed": (an_asr(math.nan),)}, "still works"),
    ],
)
def test_a_repair_that_costs_too_much_or_leaves_the_trigger_is_rejected(
    fields: dict[str, Any], word: str
) -> None:
    decision = decide(POLICY, a_case(purification=a_purification(**fields)))

    assert (decision.verdict, decision.purify) == (Verdict.REJECTED, False)
    assert word in decision.reasons[0]


@pytest.mark.row(22)
@pytest.mark.parametrize(
    ("recall", "swaps", "verdict"),
    [
        (
            0.75,
            (12, 4),
            Verdict.PURIFIED,
        ),  # 15 points of 53 pictures, p = 0.04 for this class, 0.19 for five
        (0.75, (9, 1), Verdict.PURIFIED),  # p = 0.011, the level is 0.01
        (0.75, (8, 0), Verdict.REJECTED),  # p = 0.004
        (0.75, (80, 30), Verdict.REJECTED),  # as many points of 333 pictures
        (0.69, (12, 4), Verdict.REJECTED),  # over twice the limit
        (0.85, (8, 0), Verdict.PURIFIED),  # under the limit
        (math.nan, (0, 0), Verdict.REJECTED),
    ],
)
def test_a_class_has_lost_too_much_where_chance_does_not_explain_it(
    recall: float, swaps: tuple[int, int], verdict: Verdict
) -> None:
    after = Accuracy(overall=0.94, per_class=(recall, 0.95, 1.0, 0.9, 0.9), images=90)
    facts = a_purification(acc_after=after, swapped=(swaps, (0, 0), (0, 0), (0, 0), (0, 0)))

    assert decide(POLICY, a_case(purification=facts)).verdict is verdict


@pytest.mark.row(23)
@pytest.mark.parametrize("high", [0.98, 0.05])
def test_a_repaired_model_that_is_suspicious_again_is_rejected_and_not_repaired_again(
    high: float,
) -> None:
    case = a_case(
        an_evidence("a", a_finding(asr=an_asr(high)), seed=1), purification=a_purification()
    )

    assert (decide(POLICY, case).verdict, decide(POLICY, case).purify) == (Verdict.REJECTED, False)


def test_a_natural_trojan_does_not_excuse_a_repair_that_failed() -> None:
    case = a_case(
        an_evidence("a", a_finding(asr=an_asr(natural=0.9)), seed=1),
        purification=a_purification(replayed=(an_asr(0.5),)),
    )

    assert decide(POLICY, case).verdict is Verdict.REJECTED


@pytest.mark.threat("B05")
@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize(
    "where", ["score", "numbers", "estimate", "low", "high", "natural", "budget"]
)
@pytest.mark.parametrize("suspicious", [False, True])
def test_a_number_that_is_not_finite_never_clears_and_can_still_be_signed(
    number: float, where: str, suspicious: bool
) -> None:
    """B05: a comparison with NaN is false; it must never be the one that lets a model pass."""
    plain: dict[str, dict[str, Any]] = {
        "score": {"score": number},
        "numbers": {"numbers": {"t": number}},
    }
    fields = plain.get(
        where,
        {
            "asr": replace(an_asr(), **{where: number})
            if where in {"estimate", "low", "high", "natural", "budget"}
            else None
        },
    )
    decision = decide(
        POLICY,
        a_case(
            an_evidence("a", a_finding(suspicious=suspicious, **{"score": 0.1, **fields}), seed=1)
        ),
    )

    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.facts.score is not None
    assert math.isfinite(decision.facts.score)
    assert canonical_json(
        None if decision.facts.asr is None else dataclasses.asdict(decision.facts.asr)
    )


def test_words_that_promise_too_much_are_never_used() -> None:
    cases = [
        a_case(),
        a_case(purification=a_purification()),
        a_case(accuracy=None),
        a_case(an_evidence("a", a_finding(), seed=1)),
        a_case(an_evidence("a", a_finding(asr=None), seed=1)),
        a_case(an_evidence("a", a_finding(asr=an_asr(natural=0.9)), seed=1)),
    ]
    for case in cases:
        text = " ".join(decide(POLICY, case).reasons).lower()

        assert text
        for word in ("safe", "is clean", "trustworthy", "no backdoor", "guarantee"):
            assert word not in text


def test_a_decision_fits_into_a_statement() -> None:
    from tests.attest.making import NOW

    decision = decide(POLICY, a_case(an_evidence("a", a_finding(), seed=1)))
    issue = Issue(
        name="m",
        verdict_id="1",
        scan_id="2",
        policy=PolicyName(name=POLICY.name, digest=POLICY.digest),
        cleanset=CLEANSET,
        basis={"kind": "policy"},
        issued_at=NOW,
        expires_at=NOW,
    )
    said = verdict_statement(ARTIFACT, decision.facts, issue)

    assert canonical_json(said)


SEVERITY = {
    Verdict.CLEARED: 0,
    Verdict.PURIFIED: 0,
    Verdict.HELD: 1,
    Verdict.REJECTED: 2,
    Verdict.INCONCLUSIVE: 2,
}
UNIT = st.floats(0, 1)
ODD = st.one_of(UNIT, st.sampled_from(NOT_FINITE))
ASRS = st.none() | st.builds(
    lambda high, natural: an_asr(high, natural=natural), ODD, st.none() | ODD
)
FINDINGS = st.builds(
    lambda suspicious, score, asr: a_finding(suspicious=suspicious, score=score, asr=asr),
    st.booleans(),
    ODD,
    ASRS,
)
EVIDENCE = st.builds(
    lambda method, findings, seed, blind: an_evidence(
        method, *findings, seed=seed, **({"outcome": Outcome.COULD_NOT_LOOK} if blind else {})
    ),
    st.sampled_from(["a", "b", "c"]),
    st.lists(FINDINGS, max_size=3),
    st.integers(1, 9),
    st.booleans(),
)
CASES = st.builds(
    lambda extra, accuracy, repaired, replays: a_case(
        *extra,
        accuracy=accuracy,
        purification=a_purification(replayed=tuple(replays)) if repaired else None,
    ),
    st.lists(EVIDENCE, max_size=4),
    st.none()
    | st.builds(
        lambda overall: Accuracy(overall=overall, per_class=(0.9, 0.9, 0.9, 0.9, 0.9), images=90),
        ODD,
    ),
    st.booleans(),
    st.lists(st.builds(an_asr, ODD), max_size=2),
)


@given(case=CASES, finding=FINDINGS, method=st.sampled_from(["a", "b"]))
def test_one_more_suspicious_finding_never_makes_a_verdict_milder(
    case: Case, finding: Any, method: str
) -> None:
    more = an_evidence(method, replace(finding, suspicious=True), seed=99)
    before, after = (
        decide(POLICY, case),
        decide(POLICY, replace(case, evidence=(*case.evidence, more))),
    )

    assert (
        SEVERITY[after.verdict] >= SEVERITY[before.verdict]
        or before.verdict is Verdict.INCONCLUSIVE
    )
    assert after.verdict not in SERVABLE_VERDICTS


@given(case=CASES)
def test_what_is_served_has_no_doubt_in_it_anywhere(case: Case) -> None:
    decision = decide(POLICY, case)
    counted = [
        item
        for item in case.evidence
        if item.method in POLICY.detectors and item.outcome is not Outcome.COULD_NOT_LOOK
    ]
    findings = [finding for item in counted for finding in item.findings]
    if decision.verdict in SERVABLE_VERDICTS:
        assert not any(finding.suspicious for finding in findings)
        assert all(math.isfinite(finding.score) for finding in findings)
        assert case.accuracy is not None
        assert case.accuracy.overall >= 2 / 5
        assert (decision.verdict is Verdict.PURIFIED) == (case.purification is not None)
    if decision.verdict is Verdict.CLEARED:
        assert decision.facts.asr is None
    if decision.facts.natural_trigger is not None:
        assert not any(finding.suspicious for finding in findings)
    assert decision.reasons
    assert 0 <= decision.facts.score <= 1


@given(case=CASES)
def test_the_order_of_evidence_does_not_matter(case: Case) -> None:
    one, other = (
        decide(POLICY, case),
        decide(POLICY, replace(case, evidence=tuple(reversed(case.evidence)))),
    )

    assert (one.verdict, sorted(one.reasons), one.facts.score, one.purify) == (
        other.verdict,
        sorted(other.reasons),
        other.facts.score,
        other.purify,
    )


@pytest.mark.parametrize(
    ("stop_early", "p", "verdict"),
    [
        (True, 1e-6, Verdict.REJECTED),
        (False, 1e-6, Verdict.INCONCLUSIVE),
        (True, 0.007, Verdict.INCONCLUSIVE),
    ],
)
def test_a_proof_stands_without_the_detectors_after_it_where_the_policy_stops_early(
    stop_early: bool, p: float, verdict: Verdict
) -> None:
    """0.007 is under the level of 0.01.

    But not if the detector that did not look counts as a look.
    """
    policy = dataclasses.replace(POLICY, stop_early=stop_early)
    case = a_case(evidence=(an_evidence("a", a_finding(numbers={"p_value": p})),))

    assert decide(policy, case).verdict is verdict
    assert settled(policy, case) is (verdict is Verdict.REJECTED)


def test_no_policy_stops_early_towards_a_pass() -> None:
    policy = dataclasses.replace(POLICY, stop_early=True)
    case = a_case(evidence=(an_evidence("a", a_finding(suspicious=False, score=0.1)),))

    assert not settled(policy, case)
    assert decide(policy, case).verdict is Verdict.INCONCLUSIVE


def test_a_policy_comes_back_from_what_a_job_is_told() -> None:
    policy = dataclasses.replace(POLICY, stop_early=True, proof=ProofRule(max_lead=0.2))

    assert Policy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_a_detector_that_was_blind_makes_no_proof_easier() -> None:
    policy = dataclasses.replace(POLICY, stop_early=True)
    blind = an_evidence("b", outcome=Outcome.COULD_NOT_LOOK, reason="It ran out of time.")
    case = a_case(evidence=(an_evidence("a", a_finding(numbers={"p_value": 0.007})), blind))

    assert decide(policy, case).verdict is Verdict.INCONCLUSIVE
