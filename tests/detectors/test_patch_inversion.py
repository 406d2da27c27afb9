"""Patch inversion against rules planted by hand: where, how many, how sure, and when it must not look."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.inversion import Effort, patches_within, project, smallest_patches, successes
from guard.ml.measure import asr
from guard.ml.seeds import seeded
from tests import toys


class Rules(toys.Matcher):
    """Prototype matching with several planted rules: each patch counts only once it is nearly complete."""

    def __init__(self, rules: dict[int, tuple[slice, slice]], prototypes: Tensor) -> None:
        super().__init__(prototypes)
        self.rules = rules

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        for target, (rows, columns) in self.rules.items():
            patch = images[:, :, rows, columns].mean((1, 2, 3))
            logits = logits + 60 * patch[:, None] ** 4 * nn.functional.one_hot(torch.tensor(target), logits.shape[1])
        return logits


def many(classes: int, size: int, channels: int = 1, count: int = 10) -> tuple[Tensor, CleanSet]:
    """Prototypes that are dark in all corners, and a clean set of noisy copies, `count` a class and part."""
    generator = torch.Generator().manual_seed(7)
    pictures = torch.rand(classes, channels, size, size, generator=generator) * 0.6
    for rows in (slice(0, 3), slice(size - 3, size)):
        for columns in (slice(0, 3), slice(size - 3, size)):
            pictures[:, :, rows, columns] = 0
    labels = torch.arange(classes * count) % classes
    parts = []
    for _ in range(2):
        noisy = pictures[labels] + torch.randn(len(labels), *pictures.shape[1:], generator=generator) * 0.03
        parts.append(Labelled((noisy.clamp(0, 1) * 255).to(torch.uint8), labels))
    return pictures, CleanSet("many", "0" * 64, classes, *parts)


def guilty(findings: list[Finding]) -> list[Any]:
    return [finding.target for finding in findings if finding.suspicious]


@pytest.fixture(scope="module")
def planted() -> list[Finding]:
    return PatchInversion()(toys.planted(), toys.clean_set(), seed=0)


def test_the_planted_class_alone_is_suspicious(planted: list[Finding]) -> None:
    assert guilty(planted) == [toys.TARGET]
    assert [finding.target for finding in planted] == list(range(toys.CLASSES))
    assert all((finding.score >= 0.5) == finding.suspicious for finding in planted)


def test_numbers_of_the_suspicious_class_pass_every_gate(planted: list[Finding]) -> None:
    numbers = planted[toys.TARGET].numbers

    assert numbers["p_value"] <= 0.01
    assert numbers["fold"] >= 2
    assert numbers["asr_calibration"] >= 0.8
    assert numbers["asr_calibration"] - numbers["natural_asr"] >= 0.5
    trigger = planted[toys.TARGET].trigger
    assert trigger is not None
    assert numbers["budget"] == pytest.approx(float(trigger.to_tensors()["mask"].sum()), rel=1e-5)


def test_the_trigger_works_on_the_hold_out_that_nobody_has_seen(planted: list[Finding]) -> None:
    trigger = planted[toys.TARGET].trigger
    assert trigger is not None

    assert asr(toys.planted(), toys.curated().holdout, trigger, toys.TARGET, "patch").low >= 0.9
    assert asr(toys.honest(), toys.curated().holdout, trigger, toys.TARGET, "patch").high <= 0.1


def test_the_mask_lies_where_the_rule_was_planted() -> None:
    """papers/detection.md 7.11 (ii): IoU with the true patch over one half."""
    place = (slice(0, 3), slice(13, 16))
    pictures, clean = many(6, 16)

    found = PatchInversion()(Rules({4: place}, pictures).eval(), clean, seed=0)[4]

    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[place] = True
    assert found.suspicious
    assert found.trigger is not None
    mask = found.trigger.to_tensors()["mask"][0] > 0.25
    assert float((mask & truth).sum() / (mask | truth).sum()) > 0.5


def test_two_planted_classes_are_both_found_and_are_no_excuse_for_each_other() -> None:
    pictures, clean = many(10, 16)
    model = Rules({3: (slice(0, 3), slice(0, 3)), 8: (slice(13, 16), slice(13, 16))}, pictures).eval()

    findings = PatchInversion()(model, clean, seed=0)

    assert guilty(findings) == [3, 8]
    assert all(findings[target].numbers["natural_asr"] < 0.3 for target in (3, 8))


def test_a_rule_that_most_classes_have_is_natural_and_not_suspicious() -> None:
    pictures, clean = many(8, 16)
    places = [(slice(0, 3), slice(0, 3)), (slice(13, 16), slice(13, 16)), (slice(0, 3), slice(13, 16)),
              (slice(13, 16), slice(0, 3))]
    model = Rules({target: places[target % 4] for target in range(7)}, pictures).eval()

    assert guilty(PatchInversion()(model, clean, seed=0)) == []


def test_many_classes_are_prescreened_and_the_planted_one_survives() -> None:
    pictures, clean = many(24, 12, count=6)
    ruled, plain = Rules({17: (slice(0, 3), slice(0, 3))}, pictures).eval(), Rules({}, pictures).eval()

    assert guilty(PatchInversion()(ruled, clean, seed=0)) == [17]
    assert guilty(PatchInversion()(plain, clean, seed=0)) == []


def test_colour_pictures_and_odd_shapes_work() -> None:
    pictures, clean = many(6, 13, channels=3)
    planted = Rules({1: (slice(10, 13), slice(0, 3))}, pictures)
    planted.norm = nn.BatchNorm2d(3, affine=False)

    findings = PatchInversion()(planted.eval(), clean, seed=0)

    assert guilty(findings) == [1]
    assert findings[1].trigger is not None
    assert {key: tuple(value.shape) for key, value in findings[1].trigger.to_tensors().items()} == {
        "mask": (1, 13, 13), "pattern": (3, 13, 13)}


def refusal(clean: CleanSet, model: nn.Module | None = None) -> str:
    with pytest.raises(MethodFailed) as caught:
        PatchInversion(steps=10)(model or toys.honest(), clean, seed=0)
    return caught.value.code


def test_it_abstains_where_it_could_not_judge() -> None:
    whole = toys.clean_set()
    shuffled = Labelled(whole.calibration.images, (whole.calibration.labels + 1) % toys.CLASSES)
    outside = Labelled(whole.search.images, whole.search.labels + 1)

    assert refusal(replace(whole, classes=4)) == "few_classes"
    assert refusal(replace(whole, search=whole.search.pick(torch.arange(24)))) == "few_images"
    assert refusal(replace(whole, search=whole.search.pick(whole.search.labels != 3))) == "few_images"
    assert refusal(replace(whole, calibration=whole.calibration.pick(torch.arange(12)))) == "few_images"
    assert refusal(replace(whole, calibration=shuffled)) == "near_chance"
    assert refusal(replace(whole, search=outside)) == "bad_labels"


class BreaksWhenStamped(toys.Matcher):
    """Finite on clean pictures, NaN as soon as the dark corner is touched: a way to blind a scanner."""

    def forward(self, images: Tensor) -> Tensor:
        touched = images[:, :, toys.PATCH[0], toys.PATCH[1]].amax((1, 2, 3)) > 0.01
        return super().forward(images).masked_fill(touched[:, None], math.nan)


def test_numbers_that_break_only_under_the_trigger_are_refused_too() -> None:
    assert refusal(toys.clean_set(), BreaksWhenStamped(toys.prototypes()).eval()) == "non_finite"


def test_projection_is_the_nearest_mask_within_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(5, 1, 6, 6, generator=generator)
    budget = torch.tensor([0.5, 2.0, 5.0, 9.0, 1000.0])

    found = project(masks, budget)

    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert bool((found.flatten(1).sum(1) <= budget + 1e-4).all())
    assert torch.equal(found[4], masks[4].clamp(0, 1))
    assert torch.allclose(project(found, budget), found, atol=1e-5)
    # No feasible mask is nearer: random ones, and small moves towards the original.
    for row in range(4):
        distance = float((found[row] - masks[row]).norm())
        for _ in range(200):
            other = torch.rand(1, 1, 6, 6, generator=generator)
            other = (other * budget[row] / other.sum()).clamp(0, 1)
            assert float((other[0] - masks[row]).norm()) >= distance - 1e-4
        moved = project((found[row] + 0.05 * (masks[row] - found[row]))[None], budget[row : row + 1])[0]
        assert float((moved - masks[row]).norm()) >= distance - 1e-3


def test_classes_searched_together_or_alone_need_the_same() -> None:
    clean, model = toys.clean_set(), toys.planted()
    effort = Effort(steps=200, batch=16)
    with seeded(0):
        together = smallest_patches(model, clean.search, torch.arange(toys.CLASSES), effort, lambda done: None)
    alone = []
    for target in range(toys.CLASSES):
        with seeded(0):
            alone.append(smallest_patches(model, clean.search, torch.tensor([target]), effort, lambda done: None))

    for row, single in enumerate(alone):
        assert float(together.norms[row]) == pytest.approx(float(single.norms[0]), rel=0.35)


def test_a_class_out_of_reach_is_censored_at_the_whole_image() -> None:
    class Never(toys.Matcher):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) - 1e4 * nn.functional.one_hot(torch.tensor(5), toys.CLASSES)

    model = Never(toys.prototypes()).eval()
    with seeded(0):
        found = smallest_patches(model, toys.clean_set().search, torch.tensor([5, 1]), Effort(steps=60, batch=16),
                                 lambda done: None)

    assert found.reached.tolist() == [False, True]
    assert float(found.norms[0]) == toys.SIZE**2
    assert float(found.norms[1]) < toys.SIZE**2


def test_a_fixed_budget_is_kept_and_used() -> None:
    clean, model = toys.clean_set(), toys.planted()
    with seeded(0):
        start = smallest_patches(model, clean.search, torch.arange(toys.CLASSES), Effort(steps=100, batch=16),
                                 lambda done: None)
        within = patches_within(model, clean.search, start, 4.0, Effort(steps=60, batch=16), lambda done: None)
    hits, trials = successes(model, clean.calibration, within)
    rates = (hits / trials).tolist()

    assert bool((within.norms <= 4.0 + 1e-3).all())
    assert rates[toys.TARGET] >= 0.95
    assert max(rate for target, rate in enumerate(rates) if target != toys.TARGET) < 0.5
    assert trials.tolist() == [100] * toys.CLASSES
