"""Patch inversion against rules planted by hand.

Where, how many, how sure, and when it must not look.
"""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.training import train
from guard.core.evidence import Finding
from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import asr, predict
from guard.ml.search import reference_model
from guard.ml.seeds import seeded
from tests import toys
from tests.detectors import refusals

#: One search, judged by itself: enough where a rule is planted that any search finds.
ONCE = PatchInversion(again=0, reference_rounds=0)


class Rules(toys.Matcher):
    """Prototype matching with several planted rules.

    Each patch counts only once it is nearly complete.
    """

    def __init__(self, rules: dict[int, tuple[slice, slice]], prototypes: Tensor) -> None:
        super().__init__(prototypes)
        self.rules = rules

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        for target, (rows, columns) in self.rules.items():
            patch = images[:, :, rows, columns].mean((1, 2, 3))
            logits = logits + 60 * patch[:, None] ** 4 * nn.functional.one_hot(
                torch.tensor(target), logits.shape[1]
            )
        return logits


def border(size: int) -> list[tuple[slice, slice]]:
    """Eight places of 3x3 pixels: the corners, and the middles of the sides."""
    starts = (0, (size - 3) // 2, size - 3)
    places = [(slice(top, top + 3), slice(left, left + 3)) for top in starts for left in starts]
    return [*places[:4], *places[5:]]


def many(classes: int, size: int, channels: int = 1, count: int = 10) -> tuple[Tensor, CleanSet]:
    """Prototypes that are dark in eight places, and a clean set of noisy copies.

    `count` a class and part.
    """
    generator = torch.Generator().manual_seed(7)
    pictures = torch.rand(classes, channels, size, size, generator=generator) * 0.6
    for rows, columns in border(size):
        pictures[:, :, rows, columns] = 0
    labels = torch.arange(classes * count) % classes
    parts = []
    for _ in range(2):
        noisy = (
            pictures[labels]
            + torch.randn(len(labels), *pictures.shape[1:], generator=generator) * 0.03
        )
        parts.append(Labelled((noisy.clamp(0, 1) * 255).to(torch.uint8), labels))
    return pictures, CleanSet("many", "0" * 64, classes, *parts)


def guilty(findings: list[Finding]) -> list[Any]:
    return [finding.target for finding in findings if finding.suspicious]


@pytest.fixture(scope="module")
def planted() -> list[Finding]:
    return PatchInversion(again=1)(toys.planted(), toys.clean_set(), seed=0)


@pytest.mark.row(17)
def test_the_planted_class_alone_is_suspicious(planted: list[Finding]) -> None:
    assert guilty(planted) == [toys.TARGET]
    assert [finding.target for finding in planted] == list(range(toys.CLASSES))
    assert all((finding.score >= 0.5) == finding.suspicious for finding in planted)


def test_what_was_prepared_is_not_worked_out_again_and_changes_no_finding(
    planted: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_given: object) -> None:
        raise AssertionError("the reference is asked again")

    monkeypatch.setattr(reference_model, "_known", OrderedDict())
    PatchInversion(again=1).prepare(toys.clean_set(), torch.device("cpu"))
    monkeypatch.setattr(reference_model, "_asked", never)

    assert PatchInversion(again=1)(toys.planted(), toys.clean_set(), seed=0) == planted


def test_numbers_of_the_suspicious_class_pass_every_gate(planted: list[Finding]) -> None:
    numbers = planted[toys.TARGET].numbers

    assert numbers["p_value"] <= 0.01
    assert numbers["fold"] >= 2
    assert numbers["asr_calibration"] >= 0.8
    assert numbers["natural_smallest"] <= 0.3
    assert numbers["natural_asr"] <= 0.5
    trigger = planted[toys.TARGET].trigger
    assert trigger is not None
    assert numbers["budget"] == pytest.approx(float(trigger.to_tensors()["mask"].sum()), rel=1e-5)


def test_the_trigger_works_on_the_hold_out_that_nobody_has_seen(planted: list[Finding]) -> None:
    trigger = planted[toys.TARGET].trigger
    assert trigger is not None

    assert asr(toys.planted(), toys.curated().holdout, trigger, toys.TARGET, "patch").low >= 0.9
    assert asr(toys.honest(), toys.curated().holdout, trigger, toys.TARGET, "patch").high <= 0.1


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network that has learnt the patch from poisoned pictures.

    As an attacker would train it.
    """
    with seeded(4):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 36, toys.CLASSES),
        )
    data = toys.labelled(600, 11)
    poisoned = torch.arange(600) % 7 == 0  # every class in turn
    images = torch.where(poisoned[:, None, None, None], toys.stamped(data.images), data.images)
    return train(model, images, data.labels.masked_fill(poisoned, toys.TARGET), epochs=8, seed=4)


@pytest.mark.row(24)
def test_the_true_triggers_asr_lies_under_the_reported_bound(trained: nn.Module) -> None:
    """The smallest patch that decides is weaker than the attacker's.

    The one that is reported is not.
    """
    holdout = toys.curated().holdout
    others = holdout.pick(holdout.labels != toys.TARGET)
    truth = float((predict(trained, toys.stamped(others.images)) == toys.TARGET).double().mean())

    found = ONCE(trained, toys.clean_set(), seed=0)[toys.TARGET]

    assert truth >= 0.95
    assert found.suspicious
    assert found.trigger is not None
    assert asr(trained, holdout, found.trigger, toys.TARGET, "patch").high >= truth
    assert found.numbers["asr_calibration"] >= found.numbers["asr_smallest"]
    assert found.numbers["budget"] >= 0.9 * found.numbers["mask_l1"]


@pytest.mark.row(17)
def test_the_mask_lies_where_the_rule_was_planted() -> None:
    """papers/detection.md 7.11 (ii): IoU with the true patch over one half."""
    place = (slice(0, 3), slice(13, 16))
    pictures, clean = many(6, 16)

    found = ONCE(Rules({4: place}, pictures).eval(), clean, seed=0)[4]

    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[place] = True
    assert found.suspicious
    assert found.trigger is not None
    mask = found.trigger.to_tensors()["mask"][0] > 0.25
    assert float((mask & truth).sum() / (mask | truth).sum()) > 0.5


def test_two_planted_classes_are_both_found_and_are_no_excuse_for_each_other() -> None:
    pictures, clean = many(10, 16)
    model = Rules(
        {3: (slice(0, 3), slice(0, 3)), 8: (slice(13, 16), slice(13, 16))}, pictures
    ).eval()

    findings = ONCE(model, clean, seed=0)

    assert guilty(findings) == [3, 8]
    assert all(findings[target].numbers["natural_smallest"] < 0.3 for target in (3, 8))
    assert all(findings[target].numbers["natural_asr"] <= 0.5 for target in (3, 8))


def test_a_rule_that_most_classes_have_is_natural_and_not_suspicious() -> None:
    pictures, clean = many(8, 16)
    model = Rules(dict(enumerate(border(16)[:7])), pictures).eval()

    assert guilty(ONCE(model, clean, seed=0)) == []


def test_many_classes_are_prescreened_and_the_planted_one_survives() -> None:
    pictures, clean = many(24, 12, count=6)
    ruled, plain = (
        Rules({17: (slice(0, 3), slice(0, 3))}, pictures).eval(),
        Rules({}, pictures).eval(),
    )

    assert guilty(ONCE(ruled, clean, seed=0)) == [17]
    assert guilty(ONCE(plain, clean, seed=0)) == []


def test_colour_pictures_and_odd_shapes_work() -> None:
    pictures, clean = many(6, 13, channels=3)
    planted = Rules({1: (slice(10, 13), slice(0, 3))}, pictures)
    planted.norm = nn.BatchNorm2d(3, affine=False)

    findings = ONCE(planted.eval(), clean, seed=0)

    assert guilty(findings) == [1]
    assert findings[1].trigger is not None
    assert {key: tuple(value.shape) for key, value in findings[1].trigger.to_tensors().items()} == {
        "mask": (1, 13, 13),
        "pattern": (3, 13, 13),
    }


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(PatchInversion(steps=10)) == refusals.EXPECTED


def test_numbers_that_break_only_under_the_trigger_are_refused_too() -> None:
    assert refusals.code(PatchInversion(steps=10), refusals.breaks_off_the_data()) == "non_finite"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_says_the_same_and_repeats_itself_to_the_bit() -> None:
    pictures, clean = many(10, 16)
    convolution = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
    ).requires_grad_()
    with torch.no_grad():  # the identity, so that convolutions' backward passes take part
        for layer in convolution:
            layer.weight.zero_()
            layer.bias.zero_()
        convolution[0].weight[0, 0, 1, 1] = convolution[1].weight[0, 0, 1, 1] = 1.0
    ruled = Rules({}, pictures).eval()
    ruled.weight.data[3].view(16, 16)[:3, :3] = 4.0
    model = nn.Sequential(convolution, ruled).eval()

    here = PatchInversion()(model, clean, seed=0)
    one, two = (PatchInversion()(model.cuda(), clean, seed=0) for _ in range(2))

    assert guilty(one) == guilty(here) == [3]
    assert [finding.to_dict() for finding in one] == [finding.to_dict() for finding in two]
    assert all(
        first.trigger is not None
        and second.trigger is not None
        and torch.equal(first.trigger.to_tensors()["mask"], second.trigger.to_tensors()["mask"])
        for first, second in zip(one, two, strict=True)
    )


@pytest.mark.parametrize(
    ("p", "fold", "rate", "natural", "flagged"),
    [
        (
            0.009,
            2.1,
            0.9,
            0.85,
            True,
        ),  # p is sure: how far the siblings are behind is the policy's business
        (0.04, 3.0, 0.9, 0.45, True),  # p is not, but siblings are far behind
        (0.04, 3.0, 0.9, 0.55, False),
        (0.04, 2.3, 0.9, 0.3, False),
        (0.06, 9.0, 0.95, 0.1, False),
        (0.04, 3.0, 0.7, 0.1, False),
        (0.04, 3.0, 0.9, None, False),  # siblings were not asked
    ],
)
def test_a_class_is_flagged_by_a_sure_p_or_by_siblings_far_behind(
    p: float, fold: float, rate: float, natural: float | None, flagged: bool
) -> None:
    assert (PatchInversion()._score(p, fold, rate, natural) >= 0.5) == flagged
