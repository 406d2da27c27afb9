"""The label gap is high where only the upload believes a label, and names the true class."""

import numpy as np
import pytest
import torch

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from guard.sifters.label_gap import LabelGap, raised
from tests import toys
from tests.sifters import sets


def test_poisoned_images_have_the_largest_gaps_and_their_true_class_is_estimated() -> None:
    taught = sets.poisoned()

    found = LabelGap(folds=2, seen=3600)(taught.model, taught.train, toys.clean_set(), seed=0)

    assert taught.auroc(found.train) > 0.98
    truth = toys.labelled(sets.COUNT, 11).labels.numpy()
    assert found.estimated is not None
    known = found.estimated >= 0
    assert known.mean() > 0.9
    assert (found.estimated == truth)[known].mean() > 0.95


def test_an_image_that_the_references_doubt_has_no_estimated_class() -> None:
    taught = sets.poisoned()

    found = LabelGap(folds=2, seen=3000, sure=1.1)(
        taught.model, taught.train, toys.clean_set(), seed=0
    )

    assert found.estimated is not None
    assert set(found.estimated.tolist()) == {-1}


def test_clean_images_that_teach_nothing_are_an_error() -> None:
    taught, clean = sets.poisoned(), toys.clean_set(120, 60)
    noise = [
        Labelled(torch.randint(0, 256, part.images.shape, dtype=torch.uint8), part.labels)
        for part in (clean.search, clean.calibration)
    ]
    useless = CleanSet(clean.name, clean.digest, clean.classes, noise[0], noise[1])

    with pytest.raises(MethodFailed) as caught:
        LabelGap(folds=2, seen=90)(taught.model, taught.train, useless, seed=0)

    assert caught.value.code == "not_learnt"


def test_confidence_in_clean_images_is_raised_rank_by_rank_to_that_in_training_images() -> None:
    unseen, labels = np.array([-4.0, -1.0, -2.0]), np.zeros(3, np.int64)
    by_heart = np.zeros(30)

    assert raised(unseen, labels, by_heart, np.zeros(30, np.int64)).tolist() == [0.0, 0.0, 0.0]
    alike = raised(unseen, labels, np.repeat(unseen, 10), np.zeros(30, np.int64))
    assert alike == pytest.approx(unseen)


def test_confidence_in_clean_images_is_never_lowered_and_classes_stay_apart() -> None:
    unseen, labels = np.array([-4.0, -1.0, -2.0, -3.0]), np.array([0, 0, 1, 2])
    taught, of = np.array([-9.0, -9.0, 0.0]), np.array([0, 0, 1])

    assert raised(unseen, labels, taught, of).tolist() == [-4.0, -1.0, 0.0, -3.0]


def test_clean_scores_come_from_networks_that_did_not_see_the_image() -> None:
    """Mislabel one clean image: a network that had learnt it would believe the label."""
    taught, clean = sets.honest(), toys.clean_set()
    labels = clean.search.labels.clone()
    labels[0] = (labels[0] + 1) % toys.CLASSES
    wrong = CleanSet(
        clean.name,
        clean.digest,
        clean.classes,
        Labelled(clean.search.images, labels),
        clean.calibration,
    )

    found = LabelGap(folds=2, seen=3600)(taught.model, taught.train, wrong, seed=0)

    assert found.null is not None
    # The upload does not believe it either, so the gap is small: both terms are unseen.
    assert abs(found.null[0]) < 6.0
    assert np.isfinite(found.null).all()
