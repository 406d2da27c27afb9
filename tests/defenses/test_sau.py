"""SAU's parts, each against its definition."""

import copy
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from guard.core.errors import MethodFailed
from guard.core.evidence import Accuracy
from guard.defenses.sau import Sau, worth
from guard.ml.measure import accuracy, predict
from guard.ml.training.shared_adversarial import jensen_shannon, project, suspects, unlearning
from tests import toys


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    data = toys.labelled(60, 4)
    return data.floats(), data.labels


def descend(terms: Iterable[Tensor]) -> None:
    """Gradients of the sum, term by term, as in training."""
    for term in terms:
        term.backward()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbations_stay_in_the_ball(norm: str) -> None:
    images, labels = batch()
    model = toys.planted()
    said = model(images).argmax(1)

    shift = Sau(norm=norm, rho=0.3).ball.find(
        model, copy.deepcopy(model), images, labels, said, said
    )

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

    terms = Sau(rho=1e-6).terms(
        model, copy.deepcopy(model), images, labels, model(images).argmax(1)
    )

    assert torch.allclose(
        torch.stack(list(terms)).sum(), cross_entropy(model(images), labels), atol=1e-5
    )


def test_the_frozen_reference_collects_no_gradient() -> None:
    images, labels = batch()
    model, reference = toys.planted(), toys.planted().requires_grad_(requires_grad=False)

    descend(Sau().terms(model, reference, images, labels, reference(images).argmax(1)))

    assert all(parameter.grad is None for parameter in reference.parameters())


def test_repair_lowers_the_shared_adversarial_risk() -> None:
    """The bound that the paper minimises.

    How often a perturbed image still gets the reference's wrong label.
    """
    clean, sau = toys.clean_set(), Sau(rho=0.3, rounds=10, rate=2e-2, max_drop=0.2)
    images, labels = batch()
    before = toys.planted()
    after = sau(before, clean, seed=0)

    def shared(model: torch.nn.Module) -> float:
        said = predict(before, toys.labelled(60, 4))
        shift = sau.ball.find(before, before, images, labels, said, said)
        with torch.no_grad():
            wrong = before(images + shift).argmax(1)
            mask = suspects(wrong, labels, said)
            return float(((model(images + shift).argmax(1) == wrong) & mask).float().mean())

    assert shared(before) > 0.5
    assert shared(after) < shared(before) / 2


def published(
    sau: Sau, model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The paper's step as its code computes it.

    Whole batches, clean predictions again in every inner step.

    Returns:
        The perturbation and the loss.
    """
    count, eps = len(images), torch.full_like(images, sau.rho)
    for _ in range(sau.steps):
        eps = eps.detach().requires_grad_()
        p, q = model(images + eps).softmax(1), reference(images + eps).softmax(1)
        moved = p.argmax(1) != model(images).argmax(1)
        moved_ref = q.argmax(1) != reference(images).argmax(1)
        shared = moved & moved_ref & (p.argmax(1) == q.argmax(1))
        fool = -(
            cross_entropy(model(images + eps), labels, reduction="none")[~moved].sum()
            + cross_entropy(reference(images + eps), labels, reduction="none")[~moved_ref].sum()
        ) / (2 * count)
        agree = jensen_shannon(p.log(), q.log())[~shared].sum() / count
        if bool(shared.all()):
            break
        (sau.lambda_adversarial * fool + sau.lambda_share * agree).backward()
        assert eps.grad is not None
        eps = (eps - sau.step * sau.rho * eps.grad.sign()).clamp(-sau.rho, sau.rho)
    eps = eps.detach()
    model.zero_grad()
    logits = model(torch.cat([images, images + eps]))
    wrong, believed = reference(images + eps).argmax(1), reference(images).argmax(1)
    mask = (wrong != labels) & (wrong != believed)
    return eps, cross_entropy(logits[:count], labels) + unlearning(logits[count:], wrong)[
        mask
    ].sum() / count


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_the_shorter_computation_gives_the_published_step(drift: float) -> None:
    """Hoisted clean predictions and images that leave the loop change neither perturbation nor
    gradient."""
    images, labels = batch()
    # The sign of a gradient near zero would magnify float32's rounding to a full step
    images = images.double()
    model, reference = (
        toys.planted().double(),
        toys.planted().double().requires_grad_(requires_grad=False),
    )
    model.weight.data += drift * torch.randn(
        model.weight.shape, generator=torch.Generator().manual_seed(1)
    )
    sau, twin = Sau(rho=0.25, step=0.4), copy.deepcopy(model)

    shift, loss = published(sau, twin, reference, images, labels)
    loss.backward()
    said, believed = model(images).argmax(1), reference(images).argmax(1)
    ours = sau.ball.find(model, reference, images, labels, said, believed)
    descend(sau.terms(model, reference, images, labels, believed))

    assert (
        float((model(images + ours).argmax(1) != said).float().mean()) > 0.2
    )  # something was found to agree on
    assert torch.allclose(ours, shift, atol=1e-9)
    assert model.weight.grad is not None
    assert twin.weight.grad is not None
    assert torch.allclose(model.weight.grad, twin.weight.grad, atol=1e-9)


def test_at_the_start_sharing_costs_nothing_and_the_adversarial_term_drives() -> None:
    """With equal models the divergence is zero, so its weight cannot change the first step."""
    images, labels = batch()
    model = toys.planted()
    said = model(images).argmax(1)

    shifts = [
        Sau(rho=0.1, steps=1, lambda_share=weight).ball.find(
            model, copy.deepcopy(model), images, labels, said, said
        )
        for weight in (0.0, 100.0)
    ]

    assert torch.equal(*shifts)
    assert len(shifts[0].unique()) > 1


def test_perturbing_leaves_no_gradient_behind() -> None:
    images, labels = batch()
    model = toys.planted()
    said = model(images).argmax(1)

    Sau().ball.find(model, copy.deepcopy(model), images, labels, said, said)

    assert all(parameter.grad is None for parameter in model.parameters())


def test_ruined_accuracy_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        Sau(rate=1e3, rounds=2, lambda_clean=0.0)(toys.planted(), toys.clean_set(), seed=0)

    assert caught.value.code in {"accuracy_collapsed", "non_finite"}


def forgetting(at: int) -> Callable[..., Tensor]:
    """Clean cross-entropy; in step `at` (from 1) the model loses what it knows of class 3."""
    steps = 0

    def loss(
        _sau: Sau,
        model: toys.Matcher,
        _reference: nn.Module,
        images: Tensor,
        labels: Tensor,
        _believed: Tensor,
    ) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == at:
            model.weight.data[3] *= -1
        return cross_entropy(model(images), labels)

    return loss


def test_each_picture_comes_with_its_label_and_the_references_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean, before, seen = toys.clean_set(), toys.network(), []

    def loss(
        _sau: Sau,
        model: nn.Module,
        reference: nn.Module,
        images: Tensor,
        labels: Tensor,
        believed: Tensor,
    ) -> Tensor:
        known = {
            tuple(picture.flatten().tolist()): int(label)
            for picture, label in zip(clean.search.floats(), clean.search.labels, strict=True)
        }
        seen.append(
            [known[tuple(picture.flatten().tolist())] for picture in images] == labels.tolist()
            and torch.equal(before(images).argmax(1), believed)
            and torch.equal(reference(images).argmax(1), believed)
        )
        return cross_entropy(model(images), labels)

    monkeypatch.setattr(Sau, "terms", loss)
    Sau(rounds=2, batch=100)(before, clean, seed=0)

    assert seen == [True] * 6


@pytest.mark.parametrize(("judged", "recall"), [(0.25, 1.0), (0.0, 0.0), (0.1, 0.0)])
def test_a_class_that_the_last_round_loses_is_kept(
    monkeypatch: pytest.MonkeyPatch, judged: float, recall: float
) -> None:
    """One step a round.

    Of 8 rounds the last two are judged, with a share of a tenth the last alone.
    """
    monkeypatch.setattr(Sau, "terms", forgetting(8))
    sau = Sau(rounds=8, batch=240, decay=False, judged=judged, max_drop=1.0)

    after = sau(toys.honest(), toys.clean_set(), seed=0)

    assert accuracy(after, toys.labelled(180, 3), toys.CLASSES).per_class[3] == recall


def test_of_rounds_that_are_worth_the_same_the_last_is_kept() -> None:
    first, second = (
        Sau(rounds=8, batch=60, judged=judged)(toys.honest(), toys.clean_set(), seed=0)
        for judged in (0.0, 1.0)
    )

    assert torch.equal(first.get_parameter("weight"), second.get_parameter("weight"))


def test_worth_is_accuracy_less_the_largest_loss_of_a_class() -> None:
    def facts(*recalls: float) -> Accuracy:
        return Accuracy(overall=sum(recalls) / len(recalls), per_class=recalls, images=10)

    assert worth(facts(1.0, 0.5), facts(0.8, 0.4)) == pytest.approx(0.6 - 0.2)
    assert worth(facts(0.6, 0.5), facts(0.8, 0.6)) == pytest.approx(0.7)


def test_a_repaired_networks_weights_lie_as_they_did() -> None:
    """NHWC weights would not be written to a file."""
    after = Sau(rounds=1)(toys.network(), toys.clean_set(), seed=0)

    assert all(weight.is_contiguous() for weight in after.parameters())


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(MethodFailed, match="l1"):
        Sau(norm="l1")(toys.planted(), toys.clean_set(), seed=0)
