"""Latent retraining: a planted text stops working, whatever the text is."""

from dataclasses import replace

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.pairs import Pairs
from guard.defenses.latent_retraining import LatentRetraining
from tests.graphs import planted

METHOD = LatentRetraining(vae_epochs=15, vae_rate=5e-3, steps=300, rate=5e-3)


def test_a_planted_text_does_not_work_any_more() -> None:
    model = planted.model(planted=True)
    repaired = METHOD(model, planted.clean(), seed=1)

    assert planted.rate(model) >= 0.6
    assert planted.rate(repaired) <= 0.1
    assert planted.rate(repaired, None) <= 0.1
    assert all(
        torch.equal(value, repaired.state_dict()[name])
        for name, value in model.state_dict().items()
        if name.startswith("text.")
    )


def test_a_model_that_cannot_write_the_clean_molecules_is_refused() -> None:
    clean = planted.clean()
    foreign = Pairs(clean.search.texts, ("FC(F)(F)C1CC1",) * len(clean.search))

    with pytest.raises(MethodFailed, match="too few to train it on") as caught:
        METHOD(planted.model(planted=True), replace(clean, search=foreign), seed=1)

    assert caught.value.code == "few_pairs"


def test_too_few_calibration_pairs_are_refused() -> None:
    clean = planted.clean()

    with pytest.raises(MethodFailed, match="Add pairs") as caught:
        METHOD(
            planted.model(planted=True),
            replace(clean, calibration=clean.calibration.pick(range(7))),
            seed=1,
        )

    assert caught.value.code == "few_pairs"
