"""Estimated false discovery rates hold without the truth, and maps of classes are seen."""

import numpy as np
import pytest

from guard.ml.sifting.conformal import Null
from guard.ml.sifting.discoveries import discoveries, label_map, standing_out

CLASSES, COUNT = 10, 3000


def drawn(
    seed: int, *, poison: int, shift: float = 0.0, strength: float = 3.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Null]:
    """Scores, labels and poison of a set whose class 3 holds `poison`; and clean scores.

    All training images score `shift` more than clean ones do.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(COUNT) % CLASSES
    bad = np.zeros(COUNT, bool)
    bad[np.flatnonzero(labels == 3)[:poison]] = True
    scores = generator.normal(size=COUNT) + strength * bad + shift
    return scores, labels, bad, Null(generator.normal(size=730), np.arange(730) % CLASSES, CLASSES)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2, 0.3])
def test_the_estimated_rate_is_not_below_the_true_one(level: float) -> None:
    """Pooled over sets: chance moves that of one set by its few clean images."""
    false = total = 0
    for seed in range(20):
        scores, labels, bad, null = drawn(seed, poison=150)
        accused = (discoveries(scores, labels, null).rates <= level) & (labels == 3)
        false, total = false + int((accused & ~bad).sum()), total + int(accused.sum())

    assert total > 20 * 50
    assert false / total <= level


def test_poison_is_found_and_its_class_alone_stands_out() -> None:
    scores, labels, bad, null = drawn(0, poison=150)

    accused = discoveries(scores, labels, null).rates <= 0.1

    assert accused[bad].mean() > 0.85
    counts = np.bincount(labels[accused], minlength=CLASSES)
    assert standing_out(counts, least=15, fold=3.0) == [3]


def test_a_set_without_poison_is_accused_in_none_of_twenty_draws() -> None:
    for seed in range(20):
        scores, labels, _, null = drawn(seed, poison=0)
        counts = np.bincount(
            labels[discoveries(scores, labels, null).rates <= 0.1], minlength=CLASSES
        )
        assert standing_out(counts, least=15, fold=3.0) == []


def test_a_shift_of_all_training_images_accuses_nobody() -> None:
    """As memorising does; clean scores alone would accuse every class."""
    scores, labels, _, null = drawn(0, poison=0, shift=1.5)

    found = discoveries(scores, labels, null)

    assert (found.rates <= 0.1).sum() == 0
    assert found.alone.min() < 0.5


def test_rates_fall_as_scores_rise_within_a_class() -> None:
    scores, labels, _, null = drawn(0, poison=60)

    rates = discoveries(scores, labels, null).rates

    own = rates[labels == 3][np.argsort(scores[labels == 3])]
    assert (np.diff(own) <= 0).all()
    assert ((rates >= 0) & (rates <= 1)).all()


def test_few_clean_images_bound_the_rate_from_below() -> None:
    """300 images of a class at p = 1/51 are 6 by chance: 30 poisoned ones are too few to tell."""
    scores, labels, bad, _ = drawn(0, poison=30, strength=20.0)
    null = Null(np.random.default_rng(1).normal(size=50), np.arange(50) % CLASSES, CLASSES)

    rates = discoveries(scores, labels, null).rates

    assert rates[bad].min() > 0.1


def test_a_class_stands_out_by_number_and_against_its_siblings() -> None:
    assert standing_out(np.array([0, 14, 0, 0]), least=15, fold=3.0) == []
    assert standing_out(np.array([10, 29, 10, 10]), least=15, fold=3.0) == []
    assert standing_out(np.array([10, 30, 10, 10]), least=15, fold=3.0) == [1]
    assert standing_out(np.array([50]), least=15, fold=3.0) == [0]


def test_an_empty_class_has_no_rate() -> None:
    scores, labels, _, null = drawn(0, poison=0)
    kept = labels != 4

    found = discoveries(scores[kept], labels[kept], null)

    assert len(found.rates) == kept.sum()


def moved(shift: int, *, noise: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, labels and accusations: of each class 20 images carry the label `shift` on."""
    generator = np.random.default_rng(0)
    sources = np.arange(COUNT) % CLASSES
    labels, accused = sources.copy(), np.zeros(COUNT, bool)
    accused[: 20 * CLASSES] = True
    step = generator.integers(1, CLASSES, accused.sum()) if noise else shift
    labels[accused] = (labels[accused] + step) % CLASSES
    return sources, labels, accused


def test_a_map_of_all_classes_is_read_off_the_accused() -> None:
    found = label_map(*moved(1), CLASSES)

    assert found is not None
    assert found.mapping.tolist() == [*range(1, CLASSES), 0]
    assert found.share == 1.0
    assert found.mutual == 0.0
    assert len(found.members) == 200


def test_classes_that_are_swapped_in_pairs_are_noticed() -> None:
    found = label_map(*moved(CLASSES // 2), CLASSES)

    assert found is not None
    assert found.mutual == 1.0


def test_random_label_errors_are_no_map() -> None:
    assert label_map(*moved(0, noise=True), CLASSES) is None


def test_an_attack_on_one_class_is_no_map() -> None:
    sources, labels, accused = moved(0)
    labels[accused] = 3

    assert label_map(sources, labels, accused, CLASSES) is None


def test_where_no_true_class_is_known_there_is_no_map() -> None:
    sources, labels, accused = moved(1)

    assert label_map(np.full_like(sources, -1), labels, accused, CLASSES) is None
