"""Logistic regression for a few dozen models, with Platt scaling and grouped folds.

Features are standardised, weights have an L2 penalty and are never negative: a constraint that
scikit-learn does not have. NumPy and SciPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

Matrix = np.ndarray[Any, Any]
MIN_SCALE = 1e-6


@dataclass(frozen=True)
class Fit:
    """Log odds = intercept + sum of weights * (x - means) / scales.

    A missing x (NaN) counts as its mean.
    """

    means: Matrix
    scales: Matrix
    weights: Matrix
    intercept: float

    def log_odds(self, features: Matrix) -> Matrix:
        """float64 N from N,D."""
        scaled = np.where(np.isnan(features), 0.0, (features - self.means) / self.scales)
        odds: Matrix = self.intercept + scaled @ self.weights
        return odds


def fit(features: Matrix, labels: Matrix, strength: float = 0.3) -> Fit:
    """Minimise the class-balanced log loss plus ||w||^2 / (2 C), with w >= 0 and a free intercept.

    Classes are balanced because a zoo's share of backdoored models is its maker's choice. A feature
    without spread gets the weight 0.

    Args:
        features: float64 N,D; NaN where missing.
        labels: 0 honest, 1 backdoored; both must occur.
        strength: C, the inverse strength of the penalty, in scikit-learn's meaning.

    Raises:
        ValueError: one class is missing.
    """
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    if not counts.all():
        raise ValueError("A regression needs models of both kinds.")
    known = ~np.isnan(features)
    filled = np.where(known, features, 0.0)
    seen = np.maximum(known.sum(0), 1)
    means = filled.sum(0) / seen
    spread = np.sqrt((np.where(known, features - means, 0.0) ** 2).sum(0) / seen)
    flat = spread < MIN_SCALE
    scales = np.where(flat, 1.0, spread)
    scaled = np.where(known & ~flat, (filled - means) / scales, 0.0)
    balance = len(labels) / (2 * counts[labels.astype(np.int64)])
    sign = 2 * labels - 1

    def loss(point: Matrix) -> tuple[float, Matrix]:
        odds = sign * (scaled @ point[1:] + point[0])
        pull = balance * -sign / (1 + np.exp(np.clip(odds, -500, 500)))
        value = float(
            (balance * np.logaddexp(0, -odds)).sum() + point[1:] @ point[1:] / (2 * strength)
        )
        return value, np.concatenate([[pull.sum()], scaled.T @ pull + point[1:] / strength])

    start = np.zeros(features.shape[1] + 1)
    bounds = [(None, None), *[(0.0, 0.0) if one else (0.0, None) for one in flat]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Fit(means, scales, found.x[1:], float(found.x[0]))


def platt(odds: Matrix, labels: Matrix) -> tuple[float, float]:
    """The slope (>= 0) and offset that calibrate log odds: Platt 1999, with smoothed targets.

    Args:
        odds: float64 N.
        labels: N; 0 honest, 1 backdoored.
    """
    good, bad = int((labels == 0).sum()), int((labels == 1).sum())
    targets = np.where(labels == 1, (bad + 1) / (bad + 2), 1 / (good + 2))

    def loss(point: Matrix) -> tuple[float, Matrix]:
        scored = point[0] * odds + point[1]
        rest = 1 / (1 + np.exp(-np.clip(scored, -500, 500))) - targets
        return float((np.logaddexp(0, scored) - targets * scored).sum()), np.array(
            [rest @ odds, rest.sum()]
        )

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)]
    )
    return float(found.x[0]), float(found.x[1])


def folds(groups: Sequence[str], labels: Matrix, count: int, seed: int) -> Matrix:
    """A fold 0..count-1 for each row, with the rows of a group in one fold.

    Both labels are spread as evenly as the groups allow: larger groups are assigned first, each to
    the fold that has the fewest rows of its label.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    rng.shuffle(names)
    rows = {name: [row for row, group in enumerate(groups) if group == name] for name in names}
    taken = np.zeros((count, 2), np.int64)
    where = np.zeros(len(groups), np.int64)
    for name in sorted(names, key=lambda one: -len(rows[one])):
        label = int(labels[rows[name][0]])
        fold = int(taken[:, label].argmin())
        where[rows[name]] = fold
        taken[fold, label] += len(rows[name])
    return where


def out_of_fold(features: Matrix, labels: Matrix, where: Matrix, strength: float = 0.3) -> Matrix:
    """Log odds of each row by a fit on the other folds: float64 N from features N,D.

    Raises:
        ValueError: a fold leaves only one kind of model for fitting.
    """
    odds = np.zeros(len(labels))
    for fold in np.unique(where):
        inside = where == fold
        odds[inside] = fit(features[~inside], labels[~inside], strength).log_odds(features[inside])
    return odds
