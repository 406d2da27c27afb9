"""The hypergradient against the exact one.

And what unlearning one perturbation for all pictures promises.
"""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from guard.core.manifest import Manifest
from guard.core.progress import silent
from guard.defenses.i_bau import IBau, hypergradient
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from tests import toys


class Bilevel:
    """outer = |d - c|^2 / 2 + |w|^2 / 2 with d = argmin over d of d'Ad / 2 - d'Bw.

    A has eigenvalues in 0.5..2.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
        self.a = (
            basis @ torch.diag(torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)) @ basis.T
        )
        self.b = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        self.c = torch.randn(4, generator=generator, dtype=torch.float64)
        self.w = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()

    def outer(self, d: Tensor) -> Tensor:
        return (d - self.c).square().sum() / 2 + self.w.square().sum() / 2

    def inner(self, d: Tensor) -> Tensor:
        return d @ self.a @ d / 2 - d @ self.b @ self.w

    def minimum(self) -> Tensor:
        return torch.linalg.solve(self.a, self.b @ self.w)

    def exact(self) -> Tensor:
        (gradient,) = torch.autograd.grad(self.outer(self.minimum()), self.w)
        return gradient


def test_with_enough_terms_the_hypergradient_is_the_exact_one() -> None:
    toy = Bilevel()

    (found,) = hypergradient(toy.outer, toy.inner, toy.minimum(), [toy.w], rate=0.5, terms=200)

    assert torch.allclose(found, toy.exact(), atol=1e-10)


def test_each_term_brings_it_nearer_and_none_is_the_plain_gradient() -> None:
    toy = Bilevel()
    found = [
        hypergradient(toy.outer, toy.inner, toy.minimum(), [toy.w], rate=0.5, terms=terms)[0]
        for terms in (0, 2, 5, 20)
    ]
    errors = [float((gradient - toy.exact()).norm()) for gradient in found]

    assert torch.allclose(found[0], toy.w)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]


def test_the_series_is_the_truncated_one_of_the_paper() -> None:
    toy, rate, terms = Bilevel(), 0.3, 4
    jacobian = torch.eye(4, dtype=torch.float64) - rate * toy.a  # dPhi / dd
    series = sum(
        (torch.linalg.matrix_power(jacobian.T, power) for power in range(terms)),
        torch.zeros(4, 4, dtype=torch.float64),
    ) @ (toy.minimum() - toy.c)

    (found,) = hypergradient(toy.outer, toy.inner, toy.minimum(), [toy.w], rate=rate, terms=terms)

    assert torch.allclose(found, toy.w + rate * toy.b.T @ series)


def test_a_series_that_grows_is_ended() -> None:
    toy = Bilevel()  # at this rate dPhi/dd has eigenvalues to -9

    grown = hypergradient(toy.outer, toy.inner, toy.minimum(), [toy.w], rate=5.0, terms=50)[0]

    assert torch.equal(
        grown, hypergradient(toy.outer, toy.inner, toy.minimum(), [toy.w], rate=5.0, terms=1)[0]
    )


def test_the_gradient_is_finite_where_the_perturbation_is_zero() -> None:
    model, data = toys.network(), toys.labelled(30, 4)
    weights, images = list(model.parameters()), data.floats()
    outer = lambda delta: cross_entropy(model(images + delta), data.labels)  # noqa: E731

    found = hypergradient(
        outer, IBau().inner(model, images), torch.zeros(1, 1, 12, 12), weights, rate=0.1, terms=5
    )

    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert float(torch.stack([gradient.abs().sum() for gradient in found]).sum()) > 0


def test_one_perturbation_fools_the_model_on_most_pictures_within_its_ball() -> None:
    model, data = toys.network(), toys.labelled(120, 4)

    delta = IBau(size=0.3).perturbation(model, data, silent)

    said = model(data.floats() + delta).argmax(1)
    assert delta.shape == (1, 1, toys.SIZE, toys.SIZE)
    assert float(delta.square().mean().sqrt()) <= 0.3 + 1e-6
    assert float((said != data.labels).float().mean()) > 0.5


def test_repair_lowers_the_universal_perturbations_success_and_keeps_accuracy() -> None:
    model, data, defense = (
        toys.network(),
        toys.labelled(120, 4),
        IBau(size=0.2, rounds=6, batch=40, portion=0.2),
    )

    repaired = defense(model, toys.clean_set(), seed=0)

    def fooled(net: torch.nn.Module) -> float:
        with seeded(1):
            delta = defense.perturbation(net, data, silent)
        return float((net(data.floats() + delta).argmax(1) != data.labels).float().mean())

    assert fooled(repaired) < fooled(model)
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_batch_norm_statistics_stay() -> None:
    model = toys.network()
    before = copy.deepcopy(dict(model.named_buffers()))

    repaired = IBau(rounds=1)(model, toys.clean_set(), seed=0)

    assert all(torch.equal(before[name], value) for name, value in repaired.named_buffers())


@pytest.mark.parametrize("name", ["test_vit", "cifar_vgg19_bn"])
def test_attention_and_in_place_layers_have_a_second_derivative(name: str) -> None:
    facts = Manifest(
        architecture=name,
        num_classes=3,
        input_size=(3, 32, 32),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        model_args={"width": 4} if name.startswith("cifar") else {},
    )
    torch.manual_seed(0)
    model = architectures.wrap(facts, architectures.build(facts)).eval()
    data = toys.Labelled(
        torch.randint(0, 256, (15, 3, 32, 32), dtype=torch.uint8), torch.arange(15) % 3
    )
    clean = toys.CleanSet("random", "0" * 64, 3, data, data)

    repaired = IBau(rounds=1, batch=15, max_drop=1.0)(model, clean, seed=0)

    assert any(
        not torch.equal(one, two)
        for one, two in zip(model.parameters(), repaired.parameters(), strict=True)
    )
