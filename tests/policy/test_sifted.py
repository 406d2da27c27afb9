"""What a sift of the training set does to a verdict: it accuses, and never clears."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.sift import DOUBTFUL, METHOD, PROVEN, VERSION, SiftRules, SiftVerdict
from guard.core.states import Verdict
from guard.policy import Case, DefenseRule, Policy, TrainingSetRule, decide
from guard.policy.sifted import looked
from guard.policy.training_set import sift_rules
from guard.vetting.sift_evidence import could_not_look, parameters_of
from tests.policy.making import ARTIFACT, CLEANSET, POLICY, a_case, a_finding, an_evidence

REPAIRS = replace(POLICY, defenses=(DefenseRule(name="x"),))
RULES = sift_rules(POLICY.training_set)
URI = "s3://sets/digits/"


def sift(
    *findings: Finding, rules: SiftRules = RULES, blobs: Mapping[str, str] | None = None
) -> Evidence:
    return Evidence(
        artifact=ARTIFACT,
        method=METHOD,
        version=VERSION,
        parameters=parameters_of(URI, "5" * 64, rules, {}),
        cleanset=CLEANSET,
        seed=0,
        outcome=Outcome.FINDINGS if findings else Outcome.NOTHING,
        families=(),
        findings=findings,
        blobs=blobs or {},
    )


def accused(score: float = PROVEN, **changes: Any) -> Finding:
    facts: dict[str, Any] = {
        "family": "training-set",
        "target": 3,
        "suspicious": score >= DOUBTFUL,
        "score": score,
        "statement": "90 images labelled 'dress' look like other classes.",
        "numbers": {"count": 90.0},
    }
    return Finding(**{**facts, **changes})


BLIND = could_not_look(ARTIFACT, CLEANSET, URI, RULES, "Nothing lies there.", seed=0)


def judged(*items: Evidence, policy: Policy = REPAIRS, case: Case | None = None) -> Any:
    base = a_case() if case is None else case
    return decide(policy, replace(base, evidence=(*base.evidence, *items)))


def with_rule(**changes: Any) -> Policy:
    return replace(REPAIRS, training_set=TrainingSetRule(**changes))


def test_a_sift_that_accuses_nobody_changes_only_what_the_verdict_states_of_it() -> None:
    plain, found = judged(), judged(sift())

    assert found.verdict is Verdict.CLEARED
    assert found.facts.coverage == plain.facts.coverage
    assert found.facts.training_set is not None
    assert found.facts.training_set.result is SiftVerdict.NOTHING
    assert replace(found.facts, training_set=None) == plain.facts


def test_proven_poison_is_rejected_and_can_be_repaired() -> None:
    found = judged(sift(accused(), blobs={"report": "6" * 64}))

    assert (found.verdict, found.purify) == (Verdict.REJECTED, True)
    assert found.reasons[0] == (
        f"In the training set {URI}, 90 images labelled 'dress' look like other classes."
    )
    assert (found.facts.target, found.facts.score) == (3, 1.0)
    facts = found.facts.training_set
    assert facts is not None
    assert (facts.uri, facts.digest, facts.result, facts.suspects, facts.report) == (
        URI,
        "5" * 64,
        SiftVerdict.POISONED,
        90,
        "6" * 64,
    )


def test_proven_poison_needs_no_detector_but_a_defense() -> None:
    alone = judged(sift(accused()), case=replace(a_case(), evidence=()))

    assert alone.verdict is Verdict.REJECTED
    assert "This is proven all the same." in alone.reasons[1]
    assert not judged(sift(accused()), policy=replace(POLICY, defenses=())).purify


def test_what_detectors_accuse_stays_the_target_and_the_reason_of_a_verdict() -> None:
    own = an_evidence("a", findings=(a_finding(target=1, suspicious=True, score=0.9),))
    base = a_case()
    case = replace(base, evidence=(*(one for one in base.evidence if one.method != "a"), own))
    found = judged(sift(accused()), case=case)

    assert found.verdict is Verdict.REJECTED
    assert found.facts.target == 1
    assert len(found.reasons) > 1


@pytest.mark.parametrize(
    ("action", "verdict"), [("held", Verdict.HELD), ("reported", Verdict.CLEARED)]
)
def test_the_policy_decides_what_follows_from_poison(action: str, verdict: Verdict) -> None:
    found = judged(sift(accused()), policy=with_rule(action=action))

    assert (found.verdict, found.purify) == (verdict, False)
    assert any("90 images" in reason for reason in found.reasons)
    assert (found.facts.target is None) == (verdict is Verdict.CLEARED)


def test_a_doubtful_class_is_for_a_person_and_a_remark_about_the_data_is_not() -> None:
    assert judged(sift(accused(DOUBTFUL))).verdict is Verdict.HELD
    assert judged(sift(accused(0.0))).verdict is Verdict.CLEARED


def test_doubt_is_added_to_the_reasons_of_a_verdict_that_is_stricter() -> None:
    case = replace(a_case(), evidence=())
    found = judged(sift(accused(DOUBTFUL)), case=case)

    assert found.verdict is Verdict.INCONCLUSIVE
    assert "90 images" in found.reasons[-1]


def test_a_set_that_could_not_be_sifted_is_a_note_unless_the_policy_requires_it() -> None:
    noted = judged(BLIND)
    required = judged(BLIND, policy=with_rule(required=True))
    missing = judged(policy=with_rule(required=True))

    assert noted.verdict is Verdict.CLEARED
    assert noted.reasons[-1] == f"The training set {URI} could not be sifted: Nothing lies there."
    assert required.verdict is Verdict.HELD
    assert missing.verdict is Verdict.INCONCLUSIVE
    assert judged(sift(), policy=with_rule(required=True)).verdict is Verdict.CLEARED


def test_the_gravest_of_several_sifts_counts_and_looking_goes_before_not_looking() -> None:
    assert judged(sift(accused()), sift(), BLIND).verdict is Verdict.REJECTED
    assert judged(sift(), BLIND).facts.training_set.result is SiftVerdict.NOTHING


def test_a_sift_by_other_rules_or_of_another_clean_set_or_version_does_not_count() -> None:
    other = replace(
        sift(accused()), parameters=parameters_of(URI, None, SiftRules(max_fdr=0.3), {})
    )
    for one in (
        other,
        replace(sift(accused()), cleanset="9" * 64),
        replace(sift(accused()), version=0),
        replace(sift(accused()), artifact="8" * 64),
    ):
        assert judged(one).facts.training_set is None
    base = a_case()
    assert not looked(POLICY, replace(base, evidence=(other,)))
    assert looked(POLICY, replace(base, evidence=(sift(),)))


@pytest.mark.parametrize("score", [0.0, DOUBTFUL, PROVEN])
@pytest.mark.parametrize("action", ["rejected", "held", "reported"])
def test_no_sift_ever_makes_a_verdict_milder(score: float, action: str) -> None:
    held = replace(with_rule(action=action), review_always=True)
    for policy, case in (
        (held, a_case()),
        (with_rule(action=action), replace(a_case(), evidence=())),
    ):
        before = decide(policy, case).verdict
        after = judged(sift(accused(score)), policy=policy, case=case).verdict
        assert after in (before, Verdict.REJECTED)
