"""Hidden inversion against rules over the whole image: which class, how sure, and when it says nothing."""

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.detectors.hidden_inversion import HiddenInversion
from guard.ml.measure import asr
from tests import rules, toys


def by_family(findings: list[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.family, []).append(finding)
    return found


@pytest.fixture(scope="module")
def planted() -> list[Finding]:
    return HiddenInversion()(rules.Ruled(rules.correlates).eval(), toys.clean_set(), seed=0)


def test_a_rule_over_the_whole_image_is_found_on_its_class_by_blending_and_by_adding(planted: list[Finding]) -> None:
    guilty = [finding for finding in planted if finding.suspicious]

    assert {"blend", "additive"} <= {finding.family for finding in guilty}
    assert {finding.target for finding in guilty} == {toys.TARGET}


def test_every_family_is_spoken_of_and_scores_agree_with_suspicion(planted: list[Finding]) -> None:
    assert set(by_family(planted)) == HiddenInversion.families
    assert all((finding.score >= 0.5) == finding.suspicious for finding in planted)


def test_numbers_of_a_suspicious_class_pass_every_gate(planted: list[Finding]) -> None:
    for finding in planted:
        if finding.suspicious:
            assert finding.numbers["p_value"] <= 0.01
            assert finding.numbers["asr_calibration"] >= 0.8
            assert finding.numbers["excess"] >= 0.5
            assert finding.numbers["natural_asr"] <= finding.numbers["asr_calibration"] - 0.5
            assert finding.trigger is not None
            assert finding.trigger.family == finding.family
            assert finding.trigger.norm <= finding.numbers["budget"] + 1e-6  # type: ignore[attr-defined]


def test_the_trigger_works_on_the_hold_out_of_its_model_alone(planted: list[Finding]) -> None:
    finding = next(finding for finding in planted if finding.family == "additive")
    holdout = toys.curated().holdout
    assert finding.trigger is not None

    guilty = asr(rules.Ruled(rules.correlates).eval(), holdout, finding.trigger, toys.TARGET, "additive")
    assert guilty.low >= 0.8
    assert asr(toys.honest(), holdout, finding.trigger, toys.TARGET, "additive").high <= 0.1


class Sink(toys.Matcher):
    """Answers 4 to whatever is much brighter than a toy picture, as honest models often do with strange pictures."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        bonus = torch.zeros_like(logits)
        bonus[:, 4] = 10 * nn.functional.softplus(60 * (images.mean((1, 2, 3)) - 0.4))
        return logits + bonus


def test_a_class_that_random_triggers_reach_as_well_is_no_backdoors() -> None:
    findings = HiddenInversion()(Sink(toys.prototypes()).eval(), toys.clean_set(), seed=0)
    sunk = [finding for finding in findings if finding.target == 4 and finding.numbers["asr_calibration"] >= 0.8]

    assert sunk
    assert all(finding.numbers["random_asr"] >= 0.4 for finding in sunk)
    assert not any(finding.suspicious for finding in findings)


def test_a_model_that_every_whisper_moves_makes_a_family_uninformative() -> None:
    fragile = toys.honest()
    spread = torch.randn(toys.CLASSES, toys.SIZE**2, generator=torch.Generator().manual_seed(3))
    own = toys.prototypes().flatten(1)
    own = own - own.mean(0)
    fragile.weight.data = own + 3 * (spread - spread @ torch.linalg.pinv(own) @ own)

    findings = by_family(HiddenInversion()(fragile.eval(), toys.clean_set(), seed=0))

    (finding,) = findings["additive"]
    assert (finding.target, finding.suspicious, finding.score) == (None, False, 0.0)
    assert finding.numbers["informative"] == 0
    assert "nothing" in finding.statement


def test_too_few_classes_are_refused() -> None:
    clean = toys.clean_set()
    few = type(clean)(clean.name, clean.digest, 4, clean.search, clean.calibration)

    with pytest.raises(MethodFailed) as caught:
        HiddenInversion()(toys.honest(), few, seed=0)

    assert caught.value.code == "few_classes"
