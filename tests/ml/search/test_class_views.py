"""The two views single out the class that they should, and nothing that changes no answer."""

import math

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.ml.search.battery import battery
from guard.ml.search.class_views import (
    LEAST_CLASSES,
    against_siblings,
    attraction,
    deviates,
    head_alignment,
    p_of,
    together,
)
from tests import ranking

SHAPE = (1, ranking.SIDE, ranking.SIDE)


def aligned(model: nn.Module) -> torch.Tensor:
    found = head_alignment(model, ranking.clean_set())
    assert found is not None
    return found


def drawn(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(0)
    data = ranking.clean_set().together()
    changes = [battery(b"a", SHAPE, 0)]
    return attraction(model, data, ranking.CLASSES, changes, lambda _done: None)


def test_a_row_that_points_elsewhere_than_its_images_is_the_least_aligned() -> None:
    honest, bad = aligned(ranking.network()), aligned(ranking.network(apart=4.0))

    assert int(bad.argmax()) == ranking.TARGET
    assert float(bad[ranking.TARGET]) > float(honest[ranking.TARGET]) + 0.3


def test_alignment_does_not_depend_on_scales_that_change_no_answer() -> None:
    model = ranking.network(apart=1.0)
    before = aligned(model)
    model.head.weight.mul_(7.0)
    model.head.weight[2].mul_(3.0)
    model.head.weight.add_(torch.randn(ranking.CLASSES + 1))

    scaled = ranking.network(apart=1.0)
    scaled.head.weight.mul_(7.0).add_(torch.randn(ranking.CLASSES + 1))

    assert torch.allclose(aligned(scaled), before, atol=1e-4)


def test_a_class_that_absorbs_changed_images_attracts_most() -> None:
    honest, bad = drawn(ranking.network()), drawn(ranking.network(absorbs=9.0))

    assert int(bad.argmax()) == ranking.TARGET
    assert float(bad[ranking.TARGET]) > 2 > float(honest.max())


def test_without_a_head_or_with_few_images_there_is_no_alignment() -> None:
    class Headless(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, : ranking.CLASSES] * 2.0

    class Deaf(ranking.Near):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(torch.zeros(len(images), ranking.CLASSES + 1))

    assert head_alignment(Headless(), ranking.clean_set()) is None
    assert head_alignment(Deaf().eval(), ranking.clean_set()) is None
    assert head_alignment(ranking.network(), ranking.clean_set(48, 24)) is None


def test_what_is_not_finite_is_refused() -> None:
    model = ranking.network()
    model.head.bias[1] = math.nan
    with pytest.raises(MethodFailed, match="not finite"):
        drawn(model)

    model.head.weight[1, 1] = math.inf
    with pytest.raises(MethodFailed, match="not finite"):
        head_alignment(model, ranking.clean_set())


def test_a_value_is_compared_with_the_others_alone() -> None:
    t = against_siblings([0.0, 1.0, 2.0, 9.0])

    assert t[3] == pytest.approx((9 - 1) / (1 * math.sqrt(1 + 1 / 3)))
    assert against_siblings([0.0, 1.0, 2.0, 9.0], floor=4.0)[3] == pytest.approx(t[3] / 4)
    assert against_siblings([2.0, 2.0, 2.0]) == [0.0, 0.0, 0.0]
    for bad in ([1.0, 2.0], [1.0, 2.0, math.nan]):
        with pytest.raises(ValueError, match="three finite"):
            against_siblings(bad)


def test_the_views_p_value_is_roughly_valid_for_classes_that_are_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        views = torch.randn(2, 10, generator=generator)
        found.append(p_of(max(together([deviates(view.tolist()) for view in views])), 10))

    assert all(p is not None for p in found)
    assert 0.01 < sum(p is not None and p <= 0.05 for p in found) / len(found) < 0.1


def test_a_class_far_out_in_both_views_has_a_small_p_value_and_few_classes_have_none() -> None:
    view = [0.1, -0.2, 0.3, 0.0, -0.1, 0.2, 5.0, -0.3]
    combined = together([deviates(view), deviates(view)])

    assert max(range(8), key=combined.__getitem__) == 6
    assert (p_of(max(combined), 8) or 1) < 1e-6
    assert p_of(max(combined), LEAST_CLASSES - 1) is None
