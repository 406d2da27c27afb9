"""Activation clustering finds the smaller of two clusters, and calls equal halves harmless."""

import numpy as np
import pytest
import torch

from guard.sifters.activation_clustering import ActivationClustering, two_means
from tests import toys
from tests.sifters import sets


def cloud(count: int, centre: float) -> np.ndarray:
    return np.random.default_rng(count).normal(centre, 1.0, (count, 12))


def test_two_far_clusters_are_found_with_their_sizes() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        centres, counts = two_means(np.concatenate([cloud(80, 0.0), cloud(20, 9.0)]), starts=3)

    small = int(counts.argmin())
    assert sorted(counts.tolist()) == [20, 80]
    assert abs(centres[small].mean() - 9.0) < 0.5


def test_points_that_are_all_one_are_one_cluster() -> None:
    _centres, counts = two_means(np.ones((7, 3)), starts=2)

    assert counts.tolist() == [7, 0]


def test_the_smaller_cluster_scores_higher_and_equal_halves_hardly_at_all() -> None:
    sifter = ActivationClustering()
    poisoned = np.concatenate([cloud(80, 0.0), cloud(20, 9.0)])
    halves = np.concatenate([cloud(50, 0.0), cloud(50, 9.0)])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        high, flat = sifter._clustered(poisoned)(poisoned), sifter._clustered(halves)(halves)

    assert high[80:].min() > 0.2 > 0 > high[:80].max()
    assert np.abs(flat).max() < 0.1


@pytest.mark.row(18)
def test_a_learnt_patch_is_the_smaller_cluster_of_its_class() -> None:
    taught = sets.poisoned()
    target = taught.train.labels == toys.TARGET

    scores = ActivationClustering()(taught.model, taught.train, toys.clean_set(), seed=0)

    inside = sets.Taught(taught.train, taught.poisoned[target], taught.model)
    assert inside.auroc(scores.train[target]) > 0.8
