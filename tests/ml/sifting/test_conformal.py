"""P values from clean scores are valid, by label where a label is unusual, and can be joined."""

import numpy as np
import pytest

from guard.ml.sifting.conformal import Null, joined

CLASSES = 4


def null(count: int = 400, seed: int = 0) -> Null:
    generator = np.random.default_rng(seed)
    return Null(generator.normal(size=count), np.arange(count) % CLASSES, CLASSES)


def test_a_p_value_is_the_rank_among_the_clean_scores() -> None:
    clean = Null(np.arange(9.0), np.zeros(9, np.int64), 1)

    found = clean.p_values(np.array([100.0, 8.0, 7.5, -1.0]), np.zeros(4, np.int64))

    assert found == pytest.approx([0.1, 0.2, 0.2, 1.0])
    assert clean.least == 0.1


def test_p_values_of_clean_images_are_not_too_small() -> None:
    scores = np.random.default_rng(1).normal(size=20_000)

    found = null().p_values(scores, np.arange(20_000) % CLASSES)

    for level in (0.01, 0.05, 0.2):
        assert float((found <= level).mean()) <= level + 0.02


def test_a_label_with_a_heavier_tail_has_its_own_p_values() -> None:
    clean = null()
    wide = Null(np.where(clean.labels == 2, 5 * clean.scores, clean.scores), clean.labels, CLASSES)

    p_wide, p_narrow = wide.p_values(np.array([5.0, 5.0]), np.array([2, 1]))

    assert p_wide == pytest.approx(float((5 * clean.scores[clean.labels == 2] >= 5).mean()))
    assert p_narrow < p_wide


def test_a_clean_images_own_p_value_leaves_it_out() -> None:
    clean = Null(np.array([3.0, 2.0, 1.0]), np.array([0, 0, 1]), 2)

    assert clean.own_p_values() == pytest.approx([1 / 3, 1.0, 1.0])


def test_joined_scores_are_high_where_either_statistic_is_sure() -> None:
    first, second = null(seed=0), null(seed=5)
    scores = [np.array([9.0, 0.0, 0.0]), np.array([0.0, 9.0, 0.0])]

    found, clean = joined(scores, [first, second], np.zeros(3, np.int64))

    assert found[0] > 2 * found[2]
    assert found[1] > 2 * found[2]
    assert len(clean.scores) == 400
    p_values = clean.p_values(found, np.zeros(3, np.int64))
    assert p_values[0] < 0.1 < p_values[2]


def test_statistics_on_different_clean_images_are_not_joined() -> None:
    other = Null(np.zeros(400), np.zeros(400, np.int64), CLASSES)

    with pytest.raises(ValueError, match="same clean images"):
        joined([np.zeros(2), np.zeros(2)], [null(), other], np.zeros(2, np.int64))
