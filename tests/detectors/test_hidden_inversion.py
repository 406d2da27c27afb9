"""Hidden inversion against rules over the whole image.

Which class, how sure, and when it says nothing.
"""

import pytest
import torch

from guard.core.evidence import Evidence, Finding, Outcome
from guard.detectors.hidden_inversion import FAMILIES, HiddenInversion
from guard.ml.measure import asr
from guard.policy.features import coverage
from tests import rules, toys
from tests.detectors import refusals


def by_family(findings: list[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.family, []).append(finding)
    return found


@pytest.fixture(scope="module")
def planted() -> list[Finding]:
    return HiddenInversion()(rules.Ruled(rules.correlates).eval(), toys.clean_set(), seed=0)


def test_a_rule_over_the_whole_image_is_found_on_its_class(planted: list[Finding]) -> None:
    guilty = [finding for finding in planted if finding.suspicious]

    assert "additive" in {finding.family for finding in guilty}
    assert {finding.target for finding in guilty} == {toys.TARGET}


def test_every_family_is_spoken_of_and_scores_agree_with_suspicion(planted: list[Finding]) -> None:
    assert set(by_family(planted)) == HiddenInversion.families - {
        "blend"
    }  # a blend is found as what it adds
    assert all((finding.score >= 0.5) == finding.suspicious for finding in planted)


def test_numbers_of_a_suspicious_class_pass_every_gate(planted: list[Finding]) -> None:
    for finding in planted:
        if finding.suspicious:
            assert finding.numbers["p_method"] <= 0.05
            assert finding.numbers["p_method"] == pytest.approx(
                4 * finding.numbers["p_value"]
            )  # a look a family
            assert finding.numbers["asr_calibration"] >= 0.8
            assert finding.numbers["fold"] >= 2
            assert finding.numbers["excess"] >= 0.4
            assert finding.numbers["level"] <= finding.numbers["budget"]
            assert finding.trigger is not None
            assert finding.trigger.family == finding.family
            assert finding.trigger.norm <= finding.numbers["budget"] + 1e-6  # type: ignore[attr-defined]


def test_the_trigger_works_on_the_hold_out_of_its_model_alone(planted: list[Finding]) -> None:
    finding = next(finding for finding in planted if finding.family == "additive")
    holdout = toys.curated().holdout
    assert finding.trigger is not None

    guilty = asr(
        rules.Ruled(rules.correlates).eval(), holdout, finding.trigger, toys.TARGET, "additive"
    )
    assert guilty.estimate >= 0.8  # what its gate asked for on other pictures
    assert asr(toys.honest(), holdout, finding.trigger, toys.TARGET, "additive").high <= 0.1


def test_classes_that_are_all_reached_by_a_whisper_accuse_nobody() -> None:
    fragile = toys.honest()
    spread = torch.randn(toys.CLASSES, toys.SIZE**2, generator=torch.Generator().manual_seed(3))
    own = toys.prototypes().flatten(1)
    own = own - own.mean(0)
    fragile.weight.data = own + 3 * (spread - spread @ torch.linalg.pinv(own) @ own)

    findings = by_family(HiddenInversion()(fragile.eval(), toys.clean_set(), seed=0))

    assert (
        min(
            finding.numbers["level"]
            for finding in findings["additive"]
            if "level" in finding.numbers
        )
        <= 0.1
    )
    assert not any(finding.suspicious for finding in findings["additive"])


def test_an_honest_model_is_not_accused_and_a_family_that_reaches_hardly_any_class_is_silent() -> (
    None
):
    findings = HiddenInversion()(toys.honest(), toys.clean_set(), seed=0)

    assert not any(finding.suspicious for finding in findings)
    (finding,) = by_family(findings)["filter"]
    assert (finding.target, finding.score) == (None, 0.0)
    assert finding.numbers == {"informative": 0.0}


def test_where_nothing_can_be_told_no_family_counts_as_covered() -> None:
    out_of_reach = HiddenInversion(windows=2, look_windows=1, goal=1.01)
    findings = out_of_reach(toys.honest(), toys.clean_set(), seed=0)
    heard = Evidence(
        method="hidden_inversion",
        version=out_of_reach.version,
        parameters=out_of_reach.parameters(),
        artifact="a" * 64,
        cleanset="b" * 64,
        seed=0,
        outcome=Outcome.NOTHING,
        findings=tuple(findings),
        families=tuple(sorted(HiddenInversion.families)),
        seconds=1.0,
    )

    assert coverage([heard]) == (set(), set(HiddenInversion.families))


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(HiddenInversion()) == refusals.EXPECTED


def test_numbers_that_break_only_under_the_trigger_are_refused_too() -> None:
    assert (
        refusals.code(HiddenInversion(windows=2, look_windows=1), refusals.breaks_off_the_data())
        == "non_finite"
    )


def test_it_states_the_families_that_it_searches_and_blends() -> None:
    assert {kind.family for kind in FAMILIES} | {"blend"} == HiddenInversion.families
