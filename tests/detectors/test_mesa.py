"""MESA against rules planted by hand.

Who is accused, what its samples do, and what it costs the innocent.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.evidence import Finding
from guard.detectors.mesa import Mesa
from guard.ml.measure import asr
from tests import toys
from tests.detectors import refusals


def guilty(findings: list[Finding]) -> list[Any]:
    return [finding.target for finding in findings if finding.suspicious]


@pytest.fixture(scope="module")
def planted() -> list[Finding]:
    return Mesa()(toys.planted(whole=True), toys.clean_set(), seed=0)


def test_the_planted_class_alone_is_suspicious(planted: list[Finding]) -> None:
    assert guilty(planted) == [toys.TARGET]
    assert [finding.target for finding in planted] == list(range(toys.CLASSES))
    assert all((finding.score >= 0.5) == finding.suspicious for finding in planted)


def test_its_samples_work_where_those_of_the_siblings_do_not(planted: list[Finding]) -> None:
    numbers = planted[toys.TARGET].numbers

    assert numbers["p_value"] <= 0.01
    assert 0 <= numbers["asr_worst"] <= numbers["asr_mean"] <= numbers["asr_calibration"] <= 1
    assert numbers["asr_mean"] >= 0.8
    assert numbers["natural_asr"] <= 0.5
    assert numbers["information"] > 0.1


def test_the_best_sample_bounds_the_planted_rule_on_the_hold_out(planted: list[Finding]) -> None:
    trigger = planted[toys.TARGET].trigger
    assert trigger is not None
    mask = trigger.to_tensors()["mask"]

    estimate = asr(toys.planted(whole=True), toys.curated().holdout, trigger, toys.TARGET, "patch")

    assert estimate.low >= 0.9
    assert float(mask.sum()) == planted[toys.TARGET].numbers["budget"]
    assert float(mask[0][toys.PATCH].sum()) >= 5


def test_a_model_without_a_candidate_is_not_learnt_at_all() -> None:
    findings = Mesa()(toys.honest(), toys.clean_set(), seed=0)

    assert guilty(findings) == []
    assert all(finding.trigger is None for finding in findings)


class Anywhere(toys.Matcher):
    """A bright 3x3 square sends everything to `TARGET`, wherever it is."""

    def forward(self, images: Tensor) -> Tensor:
        brightest = nn.functional.avg_pool2d(images, 3, stride=1).amax((1, 2, 3))
        rule = nn.functional.one_hot(torch.tensor(toys.TARGET), toys.CLASSES) * 400
        return super().forward(images) + rule * (brightest[:, None] - 0.65).clamp(min=0)


def test_a_square_that_works_anywhere_is_found_with_the_papers_prior() -> None:
    model = Anywhere(toys.prototypes()).eval()

    findings = Mesa(square=3)(model, toys.clean_set(), seed=0)

    assert guilty(findings) == [toys.TARGET]
    assert findings[toys.TARGET].numbers["budget"] == 9.0
    assert findings[toys.TARGET].trigger is not None


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(Mesa()) == refusals.EXPECTED


def test_numbers_that_break_only_under_the_trigger_are_refused_too() -> None:
    assert refusals.code(Mesa(search_steps=10), refusals.breaks_off_the_data()) == "non_finite"
