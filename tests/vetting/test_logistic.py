"""The small regression.

Against a plain optimum, its signs, its gaps, and folds that keep groups together.
"""

import numpy as np
import pytest

from guard.vetting import _logistic


def data(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.float64)
    features = rng.normal(size=(count, 4))
    features[:, 0] += 1.5 * labels
    features[:, 1] -= 1.5 * labels  # the wrong way round: must not count
    features[:, 3] = 7.0
    return features, labels


def test_only_what_grows_with_guilt_counts() -> None:
    features, labels = data()
    found = _logistic.fit(features, labels)
    odds = found.log_odds(features)

    assert found.weights[0] > 0.5
    assert found.weights[1] == found.weights[3] == 0
    assert (found.weights >= 0).all()
    assert odds[labels == 1].mean() > 0 > odds[labels == 0].mean()


def test_it_is_the_optimum_of_its_loss() -> None:
    features, labels = data(60)
    own = features[:, [0]]
    found = _logistic.fit(own, labels, strength=0.3)
    scaled = (own[:, 0] - own.mean()) / own.std()

    def loss(weight: float, intercept: float) -> float:
        sign = 2 * labels - 1
        return float(np.logaddexp(0, -sign * (scaled * weight + intercept)).sum() + weight**2 / 0.6)

    best = loss(float(found.weights[0]), found.intercept)
    for step in (-0.02, 0.02):
        assert loss(float(found.weights[0]) + step, found.intercept) > best
        assert loss(float(found.weights[0]), found.intercept + step) > best


def test_a_missing_number_counts_as_the_mean() -> None:
    features, labels = data()
    features[::7, 0] = np.nan
    found = _logistic.fit(features, labels)
    row = features[1:2].copy()
    row[0, 0] = np.nan
    filled = row.copy()
    filled[0, 0] = found.means[0]

    assert found.log_odds(row) == pytest.approx(found.log_odds(filled))
    assert np.isfinite(found.log_odds(features)).all()


def test_one_kind_of_model_fits_nothing() -> None:
    features, labels = data()

    with pytest.raises(ValueError, match="both kinds"):
        _logistic.fit(features, labels * 0)


def test_platt_makes_shares_of_probabilities() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(np.float64)
    slope, offset = _logistic.platt(5 * truth + 3, labels)

    assert slope == pytest.approx(0.2, rel=0.1)
    assert offset == pytest.approx(-0.6, abs=0.1)
    assert _logistic.platt(-truth, labels)[0] == 0.0  # never turned round


def test_folds_keep_groups_together_and_are_repeated_by_seed() -> None:
    groups = [f"a{index % 6}" for index in range(60)] + [f"m{index}" for index in range(40)]
    labels = np.array([1.0] * 60 + [0.0] * 40)
    where, again, other = (_logistic.folds(groups, labels, 5, seed) for seed in (3, 3, 4))

    assert (where == again).all()
    assert (where != other).any()
    for group in set(groups):
        assert (
            len({int(fold) for fold, own in zip(where, groups, strict=True) if own == group}) == 1
        )
    assert all(int(((where == fold) & (labels == 0)).sum()) == 8 for fold in range(5))


def test_out_of_fold_scores_come_from_the_other_folds() -> None:
    features, labels = data(100)
    where = np.arange(100) % 4
    odds = _logistic.out_of_fold(features, labels, where)
    own = _logistic.fit(features[where != 2], labels[where != 2]).log_odds(features[where == 2])

    assert odds[where == 2] == pytest.approx(own)
