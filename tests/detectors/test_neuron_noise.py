"""Neuron noise.

A neuron that sleeps on clean pictures and leads to one class is found, and when it must not look.
"""

from typing import Any

import pytest
import torch
from torch import nn

from guard.core.evidence import Finding
from guard.detectors.neuron_noise import NeuronNoise
from tests import toys
from tests.detectors import refusals

SURE = 0.01  # six classes leave a t test four degrees of freedom: the default level is for more


def sleeper(strength: float, *, reachable: bool = True) -> nn.Module:
    """Prototype matching through a batch norm, and one neuron, nearly asleep.

    That leads to `TARGET`.

    Its scaled input is 1 on clean pictures and its shift -0.98: a little noise wakes it. If
    `reachable`, every class also has two neurons that are always on and cancel each other, so that
    stronger noise can reach it.
    """
    count = toys.CLASSES
    always = 2 * count if reachable else 0
    hidden = count + always + 1
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(toys.SIZE**2, hidden),
        nn.BatchNorm1d(hidden, eps=0.0),
        nn.ReLU(),
        nn.Linear(hidden, count),
    )
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[:count] = (toys.prototypes() - toys.prototypes().mean(0)).flatten(1)
        model[1].bias.zero_()
        model[2].running_mean.fill_(-1.0)
        model[2].bias.zero_()
        model[2].bias[-1] = -0.98
        cancelling = [torch.eye(count) * 6, -torch.eye(count) * 6] if reachable else []
        model[4].weight.copy_(torch.cat([torch.eye(count), *cancelling, torch.zeros(count, 1)], 1))
        model[4].weight[toys.TARGET, -1] = strength
        model[4].bias.zero_()
    return model.eval()


def guilty(findings: list[Finding]) -> list[Any]:
    return [finding.target for finding in findings if finding.suspicious]


@pytest.mark.row(18)
def test_a_sleeping_neuron_is_found_and_its_class_alone_is_flagged() -> None:
    findings = NeuronNoise(alpha=SURE)(sleeper(60.0), toys.clean_set(), seed=0)

    assert guilty(findings) == [toys.TARGET]
    assert findings[toys.TARGET].numbers["fold"] >= 2
    assert all(finding.numbers["comparable"] == 1 for finding in findings)


def test_the_same_model_without_the_neuron_is_not_flagged() -> None:
    assert guilty(NeuronNoise(alpha=SURE)(sleeper(0.0), toys.clean_set(), seed=0)) == []


def test_siblings_that_cannot_be_reached_at_all_prove_nothing() -> None:
    findings = NeuronNoise(alpha=SURE)(sleeper(0.0, reachable=False), toys.clean_set(), seed=0)

    assert {finding.numbers["comparable"] for finding in findings} == {0.0}
    assert guilty(findings) == []


def test_its_numbers_are_shares_and_strengths() -> None:
    findings = NeuronNoise()(sleeper(0.0), toys.clean_set(), seed=1)

    assert [finding.target for finding in findings] == list(range(toys.CLASSES))
    for finding in findings:
        assert 0 <= finding.numbers["assignment"] <= 1
        assert -1 <= finding.numbers["share"] <= 1
        assert finding.numbers["strength"] > 0
        assert 0 <= finding.numbers["p_value"] <= 1


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(NeuronNoise()) == refusals.EXPECTED
