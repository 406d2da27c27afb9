"""The early loss of poison is low, and local gradient ascent keeps that of the others up."""

from guard.sifters.early_loss import EarlyLoss
from tests import toys
from tests.sifters import sets


def test_a_patch_is_learnt_before_the_classes_are() -> None:
    taught = sets.poisoned()

    scores = EarlyLoss(epochs=3)(taught.model, taught.train, toys.clean_set(), seed=0)

    assert scores.null is None
    assert taught.auroc(scores.train) > 0.6


def test_local_gradient_ascent_keeps_the_loss_near_gamma() -> None:
    taught = sets.honest()

    def loss(gamma: float) -> float:
        sifter = EarlyLoss(epochs=4, gamma=gamma)
        return -float(sifter(taught.model, taught.train, toys.clean_set(), seed=0).train.mean())

    assert loss(2.0) > loss(0.0)
