"""TSBD's four steps, each against its definition."""

import copy

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.defenses.tsbd import Tsbd, changes, each, planned, reset
from guard.ml.measure import accuracy
from tests import toys

CHANGES = {
    "one": torch.tensor([[9.0, 1.0], [0.0, 0.0], [3.0, 3.0]]),
    "two": torch.tensor([[2.0, 2.0, 2.0], [0.5, 0.0, 8.0]]),
}


def test_the_most_changed_sub_weights_of_the_most_changed_neurons_go() -> None:
    """Neurons sum to 10, 0, 6 and 6, 8.5: half of five are two.

    Of their five sub-weights 0.7 are three.
    """
    gone = planned(CHANGES, neurons=0.5, weights=0.7)

    assert gone["one"].tolist() == [[True, True], [False, False], [False, False]]
    assert gone["two"].tolist() == [[False, False, False], [False, False, True]]


@pytest.mark.parametrize(
    ("neurons", "weights", "expected"), [(1.0, 1.0, 12), (0.6, 0.5, 3), (0.01, 0.01, 1)]
)
def test_exactly_the_planned_share_goes_also_where_changes_are_equal(
    neurons: float, weights: float, expected: int
) -> None:
    if neurons == 0.6:
        moved = {name: torch.ones_like(change) for name, change in CHANGES.items()}
        expected = int(
            0.5 * (3 + 3 + 2)
        )  # the two longest rows, then the first of the equal others
    else:
        moved = CHANGES

    gone = planned(moved, neurons=neurons, weights=weights)

    assert sum(int(mask.sum()) for mask in gone.values()) == expected


def test_resetting_zeroes_what_is_masked_and_nothing_else() -> None:
    model = toys.layered()
    before = copy.deepcopy(model.state_dict())
    mask = torch.rand(16, 9, generator=torch.Generator().manual_seed(0)) < 0.4

    reset(model, {"conv.weight": mask})

    weight = model.conv.weight.flatten(1)
    assert not bool(weight[mask].any())
    assert torch.equal(weight[~mask], before["conv.weight"].flatten(1)[~mask])
    assert all(
        torch.equal(before[name], value)
        for name, value in model.state_dict().items()
        if name != "conv.weight"
    )


def test_unlearning_ends_at_chance_and_leaves_the_model_alone() -> None:
    model, clean = toys.layered(), toys.clean_set()
    before = copy.deepcopy(model.state_dict())

    forgetful = Tsbd(unlearn_rate=1e-2).unlearn(model, clean, silent)

    assert accuracy(forgetful, clean.search, clean.classes).overall <= 1 / clean.classes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(
        bool((change > 0).any()) for change in changes(model, forgetful, ["conv.weight"]).values()
    )


def test_a_model_that_does_not_forget_is_an_error() -> None:
    with pytest.raises(MethodFailed) as caught:
        Tsbd(unlearn_rate=1e-9, unlearn_rounds=2)(toys.layered(), toys.clean_set(), seed=0)

    assert caught.value.code == "not_unlearnt"


def test_every_tensor_moves_by_the_radius_and_a_dead_one_stays() -> None:
    gradients = {"a": torch.randn(4, 3), "b": torch.full((7,), 1e-9), "dead": torch.zeros(2)}

    shifts = each(gradients, gradients, radius=0.05)

    assert float(shifts["a"].norm()) == pytest.approx(0.05)
    assert float(shifts["b"].norm()) == pytest.approx(0.05)
    assert torch.equal(shifts["dead"], torch.zeros(2))


def test_the_whole_repairs_a_planted_rule() -> None:
    model = toys.layered()

    repaired = Tsbd(unlearn_rate=1e-2, rounds=5)(model, toys.clean_set(), seed=0)

    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95
    assert toys.success(repaired) < toys.success(model) - 0.5


class Judge(Tsbd):
    """Says of each ratio whether accuracy comes back, without training."""

    most = 0.2

    def _recovers(self, model: nn.Module, clean: object, before: float, progress: object) -> bool:
        zeros = float((model.get_parameter("conv.weight") == 0).double().mean())
        return zeros <= self.most * self.weights


def test_the_largest_ratio_at_which_accuracy_comes_back_is_taken() -> None:
    judge = Judge(unlearn_rate=1e-2)

    repaired = judge(toys.layered(), toys.clean_set(), seed=0)

    zeros = float((repaired.get_parameter("conv.weight") == 0).double().mean())
    assert zeros == pytest.approx(
        int(0.7 * int(16 * 0.17) * 9 + 1e-6) / 144
    )  # of 1, 2, 4, 8, 17, 34, 70 %


class Hanging(Judge):
    """Never satisfied."""

    most = -1.0


def test_where_accuracy_never_comes_back_the_smallest_ratio_is_left_to_the_policy() -> None:
    repaired = Hanging(unlearn_rate=1e-2)(toys.layered(), toys.clean_set(), seed=0)

    assert int((repaired.get_parameter("conv.weight") == 0).sum()) == int(0.7 * 9)  # of one neuron


def test_ruined_accuracy_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        Tsbd(unlearn_rate=1e-2, rounds=1, max_drop=-1.0)(toys.layered(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"


def test_a_network_without_neurons_is_named() -> None:
    with pytest.raises(MethodFailed) as caught:
        Tsbd()(toys.honest(), toys.clean_set(), seed=0)

    assert caught.value.code == "no_neurons"
