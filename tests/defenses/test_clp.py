"""CLP silences the channel that amplifies most, at the norm that really follows it."""

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.defenses.clp import Clp, scores
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.networks.nets.preact_resnet18 import PreactResnet18
from tests import toys


def test_the_planted_channel_goes_and_only_that_one() -> None:
    model = toys.layered()

    repaired = Clp()(model, toys.clean_set(), seed=0)

    assert toys.success(repaired) < 0.1
    gone = torch.nonzero(repaired.get_parameter("norm.weight") == 0).flatten()
    assert gone.tolist() == [model.CHANNELS - 1]
    assert torch.equal(repaired.get_parameter("conv.weight"), model.conv.weight)


def test_a_large_scale_counts_as_a_large_filter_and_a_large_variance_against_it() -> None:
    model = toys.layered()
    with torch.no_grad():
        model.conv.weight[-1] *= 0.1
        model.norm.weight[2] *= 30
        model.norm.weight[5] *= 30
        assert model.norm.running_var is not None
        model.norm.running_var[5] *= 900

    repaired = Clp(max_drop=1.0)(model, toys.clean_set(), seed=0)

    assert torch.nonzero(repaired.get_parameter("norm.weight") == 0).flatten().tolist() == [2]


def test_in_a_pre_activation_net_the_norm_behind_the_convolution_is_the_one_cut() -> None:
    """The published code takes the norm registered next.

    For conv1 that would be right, for conv2 a stranger's.
    """
    torch.manual_seed(0)
    model = PreactResnet18(2, 3, 16).eval()
    with torch.no_grad():
        model.get_parameter("layer2.1.conv1.weight")[7] *= 50
        model.get_parameter("layer2.1.conv2.weight")[9] *= 50
    generator = torch.Generator().manual_seed(0)
    data = Labelled(
        torch.randint(256, (24, 3, 16, 16), generator=generator, dtype=torch.uint8),
        torch.arange(24) % 2,
    )

    repaired = Clp(u=4.5, max_drop=1.0)(model, CleanSet("noise", "0" * 64, 2, data, data), seed=0)

    changed = {
        name: torch.nonzero(
            (value != model.get_parameter(name)).flatten(1).any(1)
            if value.dim() > 1
            else value != model.get_parameter(name)
        )
        .flatten()
        .tolist()
        for name, value in repaired.named_parameters()
        if not torch.equal(value, model.get_parameter(name))
    }
    assert changed == {"layer2.1.bn2.weight": [7], "layer2.1.conv2.weight": [9]}


def test_a_cut_that_costs_the_task_is_not_made() -> None:
    with pytest.raises(MethodFailed) as caught:
        Clp(max_drop=-1.0)(toys.layered(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"


def test_where_nothing_stands_out_nothing_is_pruned() -> None:
    model = toys.layered()
    nn.init.ones_(model.conv.weight)
    nn.init.ones_(model.norm.weight)
    nn.init.ones_(model.norm.running_var)  # type: ignore[arg-type]

    with pytest.raises(MethodFailed) as caught:
        Clp(max_drop=1.0)(model, toys.clean_set(), seed=0)

    assert caught.value.code == "nothing_found"


def test_equal_bounds_have_no_outlier_and_one_alone_has_none() -> None:
    assert torch.equal(scores(torch.ones(5)), torch.zeros(5))
    assert torch.equal(scores(torch.ones(1)), torch.zeros(1))
    with pytest.raises(MethodFailed):
        scores(torch.tensor([1.0, float("inf")]))
