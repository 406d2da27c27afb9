"""The clean distance finds poison, and its clean scores are those of unseen images."""

import numpy as np

from guard.sifters.clean_distance import CleanDistance
from tests import toys
from tests.sifters import sets


def test_poisoned_images_lie_farther_from_their_label_than_clean_ones() -> None:
    taught = sets.poisoned()

    found = CleanDistance()(taught.model, taught.train, toys.clean_set(), seed=0)

    assert taught.auroc(found.train) > 0.98


def test_clean_training_images_are_distributed_as_the_clean_scores() -> None:
    """Fitted on the images themselves, clean distances would be too small."""
    taught = sets.honest()

    found = CleanDistance()(taught.model, taught.train, toys.clean_set(60, 60), seed=0)

    assert found.null is not None
    beyond = float((found.train > np.quantile(found.null, 0.9)).mean())
    assert beyond < 0.15


def test_it_does_not_depend_on_the_order_of_the_training_set() -> None:
    taught = sets.poisoned()
    order = np.random.default_rng(0).permutation(len(taught.train))
    turned = sets.from_arrays(taught.train.rows(order), taught.train.labels[order], sets.NAMES)

    one = CleanDistance()(taught.model, taught.train, toys.clean_set(), seed=0).train
    two = CleanDistance()(taught.model, turned, toys.clean_set(), seed=0).train

    assert np.allclose(one[order], two, rtol=1e-4)
