"""ANP: masks fall where noise turns the model, and only those neurons go."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.defenses import anp
from guard.defenses.anp import Anp, sites_of
from guard.ml.measure import accuracy
from tests import toys


def test_the_planted_fragile_channel_is_pruned_and_the_task_is_kept() -> None:
    model = toys.layered()

    repaired = Anp(rounds=15)(model, toys.clean_set(), seed=0)

    assert repaired.get_parameter("norm.weight")[-1] == 0
    assert toys.success(repaired) < 0.1
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_it_has_the_smallest_mask() -> None:
    model = toys.layered()
    data = toys.clean_set().search
    torch.manual_seed(0)

    (mask,) = Anp(rounds=4, rate=0.05).masks(model, sites_of(model, data), data, silent).values()

    assert int(mask.argmin()) == model.CHANNELS - 1
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1


def test_the_model_and_its_statistics_stay_as_they_are_while_masks_are_learnt() -> None:
    model, data = toys.layered(), toys.clean_set().search
    before = copy.deepcopy(model.state_dict())

    Anp(rounds=1).masks(model, sites_of(model, data), data, silent)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_noise_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, scaled = [], anp._scaled

    def watched(own: Any, scales: Any, noise: Any) -> Any:
        seen.extend(
            [] if noise is None else [float(value.detach().abs().max()) for value in noise.values()]
        )
        return scaled(own, scales, noise)

    monkeypatch.setattr(anp, "_scaled", watched)
    model, data = toys.layered(), toys.clean_set().search
    Anp(rounds=1, steps=3).masks(model, sites_of(model, data), data, silent)

    assert max(seen) == pytest.approx(0.4)


def test_without_batch_norms_every_hidden_layer_has_masks() -> None:
    model = toys.vit()
    data = toys.Labelled(
        torch.randint(256, (10, 1, 16, 16), dtype=torch.uint8), torch.arange(10) % 5
    )

    sites = sites_of(model, data)
    masks = Anp(rounds=1).masks(model, sites, data, silent)

    assert {site.weight: len(mask) for site, mask in masks.items()} == {
        "patch_embed.proj.weight": 24,
        "blocks.0.attn.qkv.weight": 72,
        "blocks.0.attn.proj.weight": 24,
        "blocks.0.mlp.fc1.weight": 96,
        "blocks.0.mlp.fc2.weight": 24,
    }
    assert all(site.bias for site in sites)


def test_a_cut_that_costs_the_task_is_not_made() -> None:
    with pytest.raises(MethodFailed) as caught:
        Anp(rounds=1, max_drop=-1.0)(toys.layered(), toys.clean_set(), seed=0)

    assert caught.value.code == "nothing_found"


def test_a_network_without_neurons_is_named() -> None:
    with pytest.raises(MethodFailed) as caught:
        Anp()(nn.Sequential(nn.Flatten(), nn.Linear(144, toys.CLASSES)), toys.clean_set(), seed=0)

    assert caught.value.code == "no_neurons"
