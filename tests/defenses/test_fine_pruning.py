"""Fine-pruning silences what clean pictures never use, and tuning does not wake it."""

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.defenses.fine_pruning import FinePruning, activity
from guard.ml.measure import accuracy
from guard.ml.networks.neurons import flow_on
from tests import toys


def test_a_dormant_backdoor_channel_is_pruned_and_stays_so() -> None:
    repaired = FinePruning(rounds=2)(toys.layered(), toys.clean_set(), seed=0)

    assert toys.success(repaired) < 0.1
    assert not bool(repaired.get_parameter("weight")[:, -25:].any())
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_without_pruning_the_same_tuning_keeps_the_backdoor() -> None:
    repaired = FinePruning(rounds=2, steps=1)(toys.layered(), toys.clean_set(), seed=0)

    assert toys.success(repaired) > 0.9


def test_activity_is_the_mean_absolute_value_over_all_pictures() -> None:
    model, data = toys.layered(), toys.labelled(300, 1)  # more than one batch
    flow = flow_on(model, data)
    assert flow.head is not None

    found = activity(model, flow.layers[flow.head], data)

    torch.testing.assert_close(
        found, model.features(data.floats()).abs().double().mean(0), rtol=1e-5, atol=1e-7
    )


class Transposed(nn.Module):
    """A head written as features @ W."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toys.layered()
        self.columns = nn.Parameter(self.inner.weight.detach().T.clone())
        del self.inner.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.inner.features(images) @ self.columns


def test_a_head_that_stores_its_inputs_first_is_pruned_by_rows() -> None:
    repaired = FinePruning(rounds=1)(Transposed().eval(), toys.clean_set(), seed=0)

    assert not bool(repaired.get_parameter("columns")[-25:].any())


def test_a_network_without_a_head_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 6), nn.Softmax(1), nn.AdaptiveAvgPool1d(6))
    torch.nn.utils.parametrizations.weight_norm(model[1])

    with pytest.raises(MethodFailed) as caught:
        FinePruning()(model, toys.clean_set(), seed=0)

    assert caught.value.code == "no_head"


def test_ruined_accuracy_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        FinePruning(rounds=1, max_drop=-1.0)(toys.layered(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"
