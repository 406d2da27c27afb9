"""The head is started anew, keeps its norm and leaves its old direction."""

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.defenses.fst import Fst, reinitialise
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.networks.heads import head_of
from tests import toys


def test_the_head_is_reinitialised_within_the_papers_bound() -> None:
    weight, bias = torch.zeros(6, 16), torch.zeros(6)
    torch.manual_seed(0)

    reinitialise(weight, bias)

    assert 0.2 < float(weight.abs().max()) <= 0.25
    assert 0.0 < float(bias.abs().max()) <= 0.25


def test_the_norm_of_the_head_is_kept_and_its_direction_left() -> None:
    model = toys.network()
    old = model.inner.linear.weight.detach()

    new = Fst(rounds=6)(model, toys.clean_set(), seed=0).inner.linear.weight.detach()

    assert float(new.norm()) == pytest.approx(float(old.norm()), rel=1e-5)
    assert float((new * old).sum()) < 0.5 * float(old.square().sum())


def test_alpha_pushes_the_head_away_from_the_old_one() -> None:
    model = toys.network()
    old = model.inner.linear.weight.detach()
    new = [
        Fst(rounds=6, alpha=alpha)(model, toys.clean_set(), seed=0).inner.linear.weight.detach()
        for alpha in (0.0, 0.5)
    ]

    assert float((new[1] * old).sum()) < float((new[0] * old).sum())


def test_accuracy_comes_back() -> None:
    repaired = Fst()(toys.network(), toys.clean_set(), seed=0)

    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (toys.manifest(), "inner.linear.weight"),
        (
            Manifest(
                architecture="test_vit",
                num_classes=toys.CLASSES,
                input_size=(1, 12, 12),
                mean=(0.5,),
                std=(0.5,),
                model_args={"img_size": 12, "patch_size": 4},
            ),
            "inner.head.weight",
        ),
    ],
)
def test_the_head_is_found_by_data_flow(facts: Manifest, name: str) -> None:
    model = architectures.wrap(facts, architectures.build(facts)).eval()

    weight, bias = head_of(model, toys.clean_set(), method="FST")

    assert weight is dict(model.named_parameters())[name]
    assert bias is not None
    assert bias.shape == (toys.CLASSES,)


def test_a_network_without_a_head_is_named() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, toys.CLASSES, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Softmax(1),
        nn.Bilinear(1, 1, 1),
    )
    model[4] = _Squares()

    with pytest.raises(MethodFailed) as caught:
        Fst()(model, toys.clean_set(), seed=0)

    assert caught.value.code == "no_head"


class _Squares(nn.Module):
    """The logits come from a product of two parameters, which is no parameter itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (
            nn.Parameter(torch.eye(toys.CLASSES)),
            nn.Parameter(torch.eye(toys.CLASSES)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.left @ self.right)


def test_a_head_that_cannot_learn_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        Fst(rounds=1, rate=1e-9)(toys.network(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"
