"""Estimated false discovery rates hold without the truth, and maps of classes are seen."""

from typing import Any

import numpy as np
import pytest

from guard.ml.sifting.conformal import Null, joined
from guard.ml.sifting.discoveries import (
    beside_siblings,
    clean_share,
    discoveries,
    in_turn,
    label_map,
    standing_out,
)

CLASSES, COUNT = 10, 3000
RULES: dict[str, Any] = {"level": 0.1, "least": 15, "fold": 3.0}


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


def pair(
    seed: int, *, poison: int, strengths: tuple[float, float], confused: float = 0.0
) -> tuple[list[np.ndarray], list[Null], np.ndarray, np.ndarray]:
    """Two statistics of the same images; a share `confused` of class 3 is strange to both."""
    first, labels, bad, null = drawn(seed, poison=poison, strength=strengths[0])
    second, _, _, other = drawn(seed + 1000, poison=poison, strength=strengths[1])
    generator = np.random.default_rng(seed)
    strange = 2.5 * ((labels == 3) & ~bad & (generator.random(COUNT) < confused))
    clean = 2.5 * ((null.labels == 3) & (generator.random(len(null.labels)) < confused))
    nulls = [Null(one.scores + clean, one.labels, CLASSES) for one in (null, other)]
    return [first + strange, second + strange], nulls, labels, bad


def looked(scores: list[np.ndarray], nulls: list[Null], labels: np.ndarray) -> np.ndarray:
    """The rates after all looks."""
    single = list(zip(scores, nulls, strict=True))
    both = joined(scores, nulls, labels)
    return in_turn(both, single, labels, level=0.1, least=15, fold=3.0).rates


def plainly(scores: list[np.ndarray], nulls: list[Null], labels: np.ndarray) -> np.ndarray:
    """The rates of the first look alone."""
    both = joined(scores, nulls, labels)
    return discoveries(both[0], labels, both[1]).rates


def found(rates: np.ndarray, labels: np.ndarray) -> list[int]:
    counts = np.bincount(labels[rates <= 0.1], minlength=CLASSES)
    return standing_out(counts, least=15, fold=3.0)


def test_poison_that_is_half_of_its_class_is_found_by_the_share_that_can_be_clean() -> None:
    """As clean-label poison is, where some clean images of the class look as strange."""
    plain = both = false = total = 0
    for seed in range(20):
        scores, nulls, labels, bad = pair(seed, poison=150, strengths=(1.0, 1.0))
        plain += found(plainly(scores, nulls, labels), labels) == [3]
        rates = looked(scores, nulls, labels)
        both += found(rates, labels) == [3]
        accused = (rates <= 0.1) & (labels == 3)
        false, total = false + int((accused & ~bad).sum()), total + int(accused.sum())

    assert both >= plain + 4
    assert false / total <= 0.1


def test_poison_that_one_statistic_alone_sees_is_found_by_it() -> None:
    """In the mean, clean images that both find a little strange stand before it."""
    lost = false = total = 0
    for seed in range(10):
        scores, nulls, labels, bad = pair(seed, poison=45, strengths=(7.0, -1.0), confused=0.06)
        if found(plainly(scores, nulls, labels), labels) == [3]:
            continue
        lost += 1
        rates = looked(scores, nulls, labels)
        accused = (rates <= 0.1) & (labels == 3)
        assert found(rates, labels) == [3]
        assert accused[bad].mean() > 0.9
        false, total = false + int((accused & ~bad).sum()), total + int(accused.sum())

    assert lost > 5
    assert false / total <= 0.1


def test_what_the_first_look_finds_keeps_its_rates_but_for_what_siblings_show() -> None:
    scores, nulls, labels, _ = pair(0, poison=100, strengths=(4.0, 4.0))
    rates = plainly(scores, nulls, labels)
    more = beside_siblings(*joined(scores, nulls, labels), labels, [3])

    assert found(rates, labels) == [3]
    looks = looked(scores, nulls, labels)
    assert (looks[labels == 3] == np.minimum(rates, more)[labels == 3]).all()


def test_all_looks_together_accuse_at_most_one_of_thirty_honest_sets() -> None:
    """Of sixty; in half of them some of a class are strange to both statistics."""
    accused = 0
    for seed in range(60):
        scores, nulls, labels, _ = pair(
            seed, poison=0, strengths=(0.0, 0.0), confused=0.06 * (seed % 2)
        )
        accused += bool(found(looked(scores, nulls, labels), labels))

    assert accused <= 2


def strangers(seed: int, poison: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Null]:
    """As `drawn`, but a share of clean images is strange, and none that taught the network."""
    scores, labels, bad, null = drawn(seed, poison=poison)
    strange = np.random.default_rng(seed + 100).random(730) < 0.03
    return scores, labels, bad, Null(null.scores + 3.0 * strange, null.labels, CLASSES)


def test_a_class_that_stands_out_is_measured_by_what_its_siblings_show() -> None:
    kept = grown = false = 0
    for seed in range(20):
        scores, labels, bad, null = strangers(seed, poison=120)
        before = discoveries(scores, labels, null).rates <= 0.1
        after = in_turn((scores, null), [(scores, null)], labels, **RULES).rates <= 0.1
        counts = np.bincount(labels[before], minlength=CLASSES)
        if standing_out(counts, least=15, fold=3.0) != [3]:
            continue
        assert found(np.where(after, 0.0, 1.0), labels) == [3]
        assert not (before & (labels == 3) & ~after).any()
        kept, grown = kept + int((before & bad).sum()), grown + int((after & bad).sum())
        false += int((after & ~bad & (labels == 3)).sum())

    assert grown > 1.1 * kept > 0
    assert false <= 0.1 * (false + grown)


def test_siblings_accuse_no_class_and_say_nothing_where_they_are_few() -> None:
    for seed in range(20):
        scores, labels, _, null = strangers(seed, poison=0)
        rates = in_turn((scores, null), [(scores, null)], labels, **RULES).rates
        assert found(rates, labels) == []
    assert (beside_siblings(scores, null, labels, ()) == 1).all()
    assert (beside_siblings(scores, null, labels, range(5)) == 1).all()
    few = labels >= 6
    assert (beside_siblings(scores[few], null, labels[few], [9]) == 1).all()


def test_more_suspects_of_one_class_never_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, _, null = drawn(0, poison=150)
    before = in_turn((scores, null), [(scores, null)], labels, **RULES).rates
    monkeypatch.setattr(
        "guard.ml.sifting.discoveries.beside_siblings", lambda *_args: np.zeros(len(labels))
    )
    after = in_turn((scores, null), [(scores, null)], labels, **RULES).rates

    assert found(before, labels) == found(after, labels) == [3]


def test_one_statistic_has_no_third_look() -> None:
    scores, labels, _, null = drawn(0, poison=150)

    rates = in_turn((scores, null), [(scores, null)], labels, level=0.1, least=15, fold=3.0)

    assert (rates.alone == discoveries(scores, labels, null).alone).all()
    assert found(rates.rates, labels) == [3]


def test_the_share_of_clean_images_is_not_estimated_too_low() -> None:
    generator = np.random.default_rng(0)
    for clean in (0.5, 0.8, 1.0):
        values = generator.random(400)
        values[round(400 * clean) :] *= 0.02
        assert clean <= clean_share(values) <= clean + 0.25 or clean_share(values) == 1.0
    assert clean_share(np.empty(0)) == 1.0


@pytest.mark.parametrize("strange", [0.4, 0.8, 1.5, 4.0])
def test_a_class_that_is_strange_as_a_whole_has_no_estimated_share(strange: float) -> None:
    scores, labels, _, null = drawn(0, poison=0)
    moved = scores[labels == 3] + strange

    assert clean_share(null.p_values(moved, np.full(len(moved), 3))) == 1.0


def test_a_class_that_one_statistic_finds_strange_as_a_whole_is_not_accused() -> None:
    """A small network may be surer of one class than the references are of all its images."""
    scores, nulls, labels, _ = pair(0, poison=0, strengths=(0.0, 0.0))
    for strange in (0.4, 0.8):
        moved = [scores[0], np.where(labels == 3, scores[1] + strange, scores[1])]
        assert found(looked(moved, nulls, labels), labels) == []
    narrow = [scores[0], np.where(labels == 3, 0.2 * scores[1] + 1.2, scores[1])]
    assert found(looked(narrow, nulls, labels), labels) == []


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
