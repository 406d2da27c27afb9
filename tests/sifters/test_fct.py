"""FCT's parts, each against its definition, and the claim that poisoned images move more."""

import numpy as np
import pytest
import torch

from guard.sifters import fct
from guard.sifters.fct import Fct, centroid_similarity, turned_and_shifted
from tests import toys
from tests.sifters import sets


def test_a_learnt_patch_moves_more_than_clean_images_under_the_uploads_features() -> None:
    taught = sets.poisoned()
    target = taught.train.labels == toys.TARGET

    scores = Fct(upload=True, transforms=4)(taught.model, taught.train, toys.clean_set(), seed=0)

    assert scores.null is None
    inside = sets.Taught(taught.train, taught.poisoned[target], taught.model)
    assert inside.auroc(scores.train[target]) > 0.6


def test_step_b_minimises_the_similarity_of_centroids_including_the_diagonals_zeros() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 4])

    # Centroids along 0, 90 and 45 degrees: cosines 0, 0.7071 and 0.7071, each pair twice, of 9.
    assert float(centroid_similarity(features, labels)) == pytest.approx(4 * 0.5**0.5 / 9)


def test_a_batch_of_one_class_has_nothing_to_push_apart() -> None:
    assert float(centroid_similarity(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))) == 0.0


def test_a_copy_is_turned_about_its_centre_and_shifted_by_whole_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fct, "TURN", 0.0)
    image = torch.zeros(64, 1, 10, 10)
    image[:, :, 5, 5] = 1.0

    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = turned_and_shifted(image)

    places = {tuple(row) for row in torch.nonzero(moved[:, 0])[:, 1:].tolist()}
    assert moved.unique().tolist() == [0.0, 1.0]
    assert float(moved.sum()) == 64
    assert len(places) > 10
    assert places <= {(down, across) for down in range(3, 8) for across in range(3, 8)}


def test_what_the_rotation_pushes_out_does_not_come_back() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = turned_and_shifted(torch.ones(200, 1, 12, 20))

    kept = moved.flatten(1).mean(1)
    assert float(kept.max()) <= 1.0
    assert float(kept.mean()) < 0.95
    assert moved.unique().tolist() == [0.0, 1.0]


def test_both_thresholds_are_the_papers() -> None:
    scores = np.random.default_rng(0).permutation(100).astype(float)

    split = Fct().split(scores)

    assert (split.gamma_clean, split.gamma_poisoned) == (20.0, 95.0)
    assert set(scores[split.clean]) == set(range(21))
    assert set(scores[split.poisoned]) == set(range(95, 100))


def test_more_transforms_give_calmer_scores() -> None:
    taught = sets.honest()

    def apart(transforms: int) -> float:
        one, two = (
            Fct(upload=True, transforms=transforms)(
                taught.model, taught.train, toys.clean_set(), seed=seed
            ).train
            for seed in (0, 1)
        )
        return float(np.corrcoef(one, two)[0, 1])

    assert apart(8) > apart(1)
