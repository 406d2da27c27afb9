"""Margins.

An inflated row is flagged, a class's own features are no guilt, and when it must not look.
"""

from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.detectors.margin import Margin
from tests import toys
from tests.detectors import refusals


def linear(*, inflated: int | None = None, own: int | None = None) -> nn.Module:
    """Prototype matching by one linear layer.

    `inflated`: this class's row answers to a corner that is dark in all clean pictures. `own`: this
    class's row is three times as long in its own direction.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(toys.SIZE**2, toys.CLASSES))
    with torch.no_grad():
        rows = toys.prototypes() - toys.prototypes().mean(0)
        if inflated is not None:
            rows[inflated, :, toys.PATCH[0], toys.PATCH[1]] = 10.0
        model[1].weight.copy_(rows.flatten(1))
        model[1].bias.zero_()
        if own is not None:
            model[1].weight[own] *= 3
            model[1].bias[own] = -float(
                (model[1].weight @ toys.prototypes().flatten(1).T)[own].topk(2).values.mean()
            )
    return model.eval()


def guilty(findings: list[Finding]) -> list[Any]:
    return [finding.target for finding in findings if finding.suspicious]


@pytest.mark.row(18)
def test_an_inflated_row_is_flagged_and_no_other() -> None:
    """papers/detection.md 7.11 (iii)."""
    findings = Margin()(linear(inflated=4), toys.clean_set(), seed=0)

    assert guilty(findings) == [4]
    assert findings[4].numbers["p_value"] <= 0.001
    assert findings[4].numbers["excess"] >= 1
    assert findings[4].trigger is None
    assert all(finding.numbers["corrected"] == 1 for finding in findings)


def test_each_class_is_judged_for_itself_too() -> None:
    findings = Margin()(linear(inflated=4), toys.clean_set(), seed=0)
    alone = [finding.numbers["p_class"] for finding in findings]

    assert min(alone) == alone[4]
    assert findings[4].numbers["p_value"] == pytest.approx(min(1.0, toys.CLASSES * alone[4]))
    assert {finding.numbers["classes"] for finding in findings} == {toys.CLASSES}
    assert all(finding.numbers["near"] < 0.5 for finding in findings)


def test_the_same_model_without_it_is_not() -> None:
    assert guilty(Margin()(linear(), toys.clean_set(), seed=0)) == []


def test_a_class_that_is_only_more_itself_is_not_flagged() -> None:
    model = linear(own=1)
    with torch.no_grad():
        towards = (model[1].weight > 0).float().view(-1, 1, toys.SIZE, toys.SIZE)
        best = model(towards).topk(2).values

    assert int((best[:, 0] - best[:, 1]).argmax()) == 1
    assert guilty(Margin()(model, toys.clean_set(), seed=0)) == []


def test_a_rule_beside_the_head_is_found_too() -> None:
    assert guilty(Margin()(toys.planted(), toys.clean_set(), seed=0)) == [toys.TARGET]


class Headless(toys.Matcher):
    """Distances instead of a linear layer: no weighted layer leads to the logits."""

    def forward(self, images: Tensor) -> Tensor:
        return -(images.flatten(1)[:, None] - self.weight[None] - 0.35).square().sum(2)


class Counted:
    """Counts the images that pass through a matcher with a backward pass to them."""

    def __enter__(self) -> Self:
        self.images = 0
        self.hook = nn.modules.module.register_module_forward_hook(self._count)
        return self

    def __exit__(self, *_error: object) -> None:
        self.hook.remove()

    def _count(self, module: nn.Module, _images: object, logits: Tensor) -> None:
        if isinstance(module, toys.Matcher) and logits.requires_grad:
            self.images += len(logits)


def test_without_a_head_it_says_so_and_accuses_nobody() -> None:
    findings = Margin()(Headless(toys.prototypes()).eval(), toys.clean_set(), seed=0)

    assert {finding.numbers["corrected"] for finding in findings} == {0.0}
    assert guilty(findings) == []
    assert all("no last layer" in finding.statement for finding in findings)
    assert all(finding.numbers["margin_plain"] > 0 for finding in findings)


def test_each_class_is_climbed_once_head_or_not() -> None:
    for model in (toys.planted(), Headless(toys.prototypes()).eval()):
        searched = []
        for steps in (7, 9):
            with Counted() as counted:
                Margin(steps=steps)(model, toys.clean_set(), seed=0)
            searched.append(counted.images)

        assert searched[1] - searched[0] == 2 * 8 * toys.CLASSES


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(Margin(steps=2)) == refusals.EXPECTED


def test_margins_that_are_not_finite_are_refused() -> None:
    assert refusals.code(Margin(steps=5), refusals.breaks_off_the_data()) == "non_finite"


class Once(nn.Module):
    """The answers of `network`, and one of its calls has no finite one for the first image."""

    def __init__(self, network: nn.Module, call: int) -> None:
        super().__init__()
        self.network, self.left = network, call

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        logits: Tensor = self.network(images)
        if self.left:
            return logits
        return logits.index_fill(0, torch.zeros(1, dtype=torch.long), torch.nan)


def test_a_climb_that_met_no_answer_on_its_way_measures_nothing() -> None:
    calls = list[int]()
    counted = Once(linear(), -1)
    counted.register_forward_hook(lambda *_: calls.append(1))
    Margin()(counted, toys.clean_set(), seed=0)

    with pytest.raises(MethodFailed) as caught:
        Margin()(Once(linear(), len(calls) - 30), toys.clean_set(), seed=0)

    assert caught.value.code == "non_finite"
