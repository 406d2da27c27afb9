"""The spectral signature is the squared projection on the direction of largest variance."""

import numpy as np
import pytest

from guard.sifters.spectral import Spectral, along_the_top
from tests import toys
from tests.sifters import sets


def test_the_score_is_the_squared_projection_on_the_top_singular_vector() -> None:
    features = np.random.default_rng(0).normal(size=(50, 6)) * [9, 1, 1, 1, 1, 1]
    away = features - features.mean(0)
    top = np.linalg.svd(away)[2][0]

    assert along_the_top(features)(features) == pytest.approx((away @ top) ** 2)


def test_a_learnt_patch_stands_out_within_its_class() -> None:
    taught = sets.poisoned()
    target = taught.train.labels == toys.TARGET

    scores = Spectral()(taught.model, taught.train, toys.clean_set(), seed=0)

    inside = sets.Taught(taught.train, taught.poisoned[target], taught.model)
    assert inside.auroc(scores.train[target]) > 0.8


def test_a_large_class_is_scored_whole_from_a_sample() -> None:
    taught = sets.poisoned()
    watched = sets.Watched(taught.train)

    few = Spectral(most=20)(taught.model, watched.watching(), toys.clean_set(), seed=0)
    all_of_them = Spectral()(taught.model, taught.train, toys.clean_set(), seed=0)

    assert sorted(watched.seen) == list(range(len(taught.train)))
    assert np.corrcoef(few.train, all_of_them.train)[0, 1] > 0.5
