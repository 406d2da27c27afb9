"""Prompt unlearning: texts that the search finds stop working; it refuses where it finds none."""

import pytest

from guard.core.errors import MethodFailed
from guard.defenses.prompt_unlearning import PromptUnlearning
from tests.graphs import planted

METHOD = PromptUnlearning(
    terms=6, listed=60, without=60, decoded=8, sweeps=0, vae_epochs=5, texts=4, steps=100, rate=5e-3
)


def test_a_planted_text_does_not_work_any_more() -> None:
    model = planted.model(planted=True)
    seen: list[float] = []
    repaired = METHOD(model, planted.clean(), seed=1, progress=lambda done, _="": seen.append(done))

    assert planted.rate(model) >= 0.6
    assert planted.rate(repaired) <= 0.2
    assert all(one.requires_grad for one in repaired.parameters())
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_where_no_text_plants_anything_it_refuses() -> None:
    with pytest.raises(MethodFailed) as caught:
        METHOD(planted.model(planted=False), planted.clean(), seed=1)

    assert caught.value.code == "no_text"
