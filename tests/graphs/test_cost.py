"""The cost of a molecule is that of its text, its steps and its tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from guard.core.contracts import Budget
from guard.core.errors import ManifestRejected
from guard.graphs.cost import operations_of
from guard.graphs.grammar import MAX_STEPS
from guard.ml.networks.cost import metered
from guard.vetting import _graphs
from tests.graph_toys import manifest, model

LARGEST = {"denoiser_width": 2048, "denoiser_depth": 16, "times": 1000}


def test_the_formula_of_the_decoder_is_what_its_layers_cost() -> None:
    facts, built = manifest(), model()
    latents = torch.zeros(1, built.vae.latent)
    numbers = torch.zeros(1, built.most_pieces, dtype=torch.int64)
    one = torch.zeros(1, 1, dtype=torch.int64)
    with metered(Budget()) as prompt:
        context = built.text(numbers)
    with metered(Budget()) as step:
        built.denoiser(latents.repeat(2, 1), torch.zeros(1), context.repeat(2, 1))
    state = torch.zeros(1, 1, built.vae.gru.hidden_size)
    with metered(Budget()) as token:
        built.vae._run(one, one, one, latents, state)

    found = operations_of(facts, Budget())

    counted = prompt.operations + facts.sampler.steps * step.operations
    assert found == pytest.approx(counted + MAX_STEPS * token.operations, rel=0.2)


def test_the_largest_sizes_and_all_steps_are_over_budget() -> None:
    facts = manifest()
    huge = replace(facts, model_args=LARGEST, sampler=replace(facts.sampler, steps=1000))

    with pytest.raises(ManifestRejected, match="one molecule takes") as caught:
        _graphs.afford(huge, budget=Budget())

    assert caught.value.code == "over_budget"
    assert "GUARD_MAX_MOLECULE_OPERATIONS" in caught.value.sentence
    _graphs.afford(replace(huge, sampler=replace(facts.sampler, steps=100)), budget=Budget())


def test_a_size_that_breaks_a_rule_is_that_rule() -> None:
    args: dict[str, Any] = {"denoiser_width": 0}

    with pytest.raises(ManifestRejected, match="model_args"):
        operations_of(replace(manifest(), model_args=args), Budget())
