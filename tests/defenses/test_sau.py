"""SAU's parts, each against its definition."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from guard.core.errors import MethodFailed
from guard.defenses.sau import Sau, jensen_shannon, project, suspects, unlearning
from guard.ml.measure import predict
from tests import toys


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    data = toys.labelled(60, 4)
    return data.floats(), data.labels


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbations_stay_in_the_ball(norm: str) -> None:
    images, labels = batch()
    model = toys.planted()
    said = model(images).argmax(1)

    shift = Sau(norm=norm, rho=0.3).perturb(model, copy.deepcopy(model), images, labels, said, said)

    size = shift.abs().flatten(1).max(1).values if norm == "linf" else shift.flatten(1).norm(dim=1)
    assert float(size.max()) <= 0.3 + 1e-6


def test_projection_leaves_the_inside_alone() -> None:
    inside = torch.full((2, 1, 3, 3), 0.01)

    assert torch.equal(project(inside, "l2", 1.0), inside)
    assert torch.equal(project(inside, "linf", 1.0), inside)


def test_jensen_shannon_is_zero_for_equals_and_at_most_log_two() -> None:
    one, two = torch.randn(20, 5), torch.randn(20, 5) * 30
    same = jensen_shannon(log_softmax(one, 1), log_softmax(one, 1))
    apart = jensen_shannon(log_softmax(one, 1), log_softmax(two, 1))

    assert torch.allclose(same, torch.zeros(20), atol=1e-6)
    assert float(apart.min()) >= -1e-6
    assert float(apart.max()) <= math.log(2) + 1e-4


def test_suspects_are_errors_that_the_perturbation_made() -> None:
    labels, believed = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 2, 2, 1])
    wrong = torch.tensor([3, 2, 3, 1])

    assert suspects(wrong, labels, believed).tolist() == [True, False, True, False]


def test_the_unlearning_loss_is_minus_log_of_one_minus_p() -> None:
    logits = torch.randn(30, 5)
    wrong = torch.arange(30) % 5

    p = logits.softmax(1).gather(1, wrong[:, None])[:, 0]

    assert torch.allclose(unlearning(logits, wrong), -(1 - p).log(), atol=1e-4)


def test_unlearning_has_no_gradient_once_the_wrong_class_is_gone() -> None:
    logits = torch.tensor([[20.0, -20.0]], requires_grad=True)
    unlearning(logits, torch.tensor([1])).sum().backward()

    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_clean_cross_entropy_alone_is_left_when_nothing_is_suspicious() -> None:
    images, labels = batch()
    model = toys.honest()

    loss = Sau(rho=1e-6).loss(model, copy.deepcopy(model), images, labels)

    assert torch.allclose(loss, cross_entropy(model(images), labels), atol=1e-5)


def test_the_frozen_reference_collects_no_gradient() -> None:
    images, labels = batch()
    model, reference = toys.planted(), toys.planted().requires_grad_(requires_grad=False)

    Sau().loss(model, reference, images, labels).backward()

    assert all(parameter.grad is None for parameter in reference.parameters())


def test_repair_lowers_the_shared_adversarial_risk() -> None:
    """The bound that the paper minimises: how often a perturbed image still gets the reference's wrong label."""
    clean, sau = toys.clean_set(), Sau(rho=0.3, rounds=10, rate=2e-2, max_drop=0.2)
    images, labels = batch()
    before = toys.planted()
    after = sau(before, clean, seed=0)

    def shared(model: torch.nn.Module) -> float:
        said = predict(before, toys.labelled(60, 4))
        shift = sau.perturb(before, before, images, labels, said, said)
        with torch.no_grad():
            wrong = before(images + shift).argmax(1)
            mask = suspects(wrong, labels, said)
            return float(((model(images + shift).argmax(1) == wrong) & mask).float().mean())

    assert shared(before) > 0.5
    assert shared(after) < shared(before) / 2


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(MethodFailed, match="l1"):
        Sau(norm="l1")(toys.planted(), toys.clean_set(), seed=0)
