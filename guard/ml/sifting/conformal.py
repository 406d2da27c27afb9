"""P values of scores from scores of clean images, and several statistics as one.

Source: conformal p values, Vovk et al., "Algorithmic Learning in a Random World", 2005, chapter 2.

A score's p value is its rank among the scores of all clean images: pooled, since one class has too
few for a small p. Some classes have wider scores than others, though, so that a class's own tail
counts where it is heavier: p is at least the share of its own clean images that score as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Null:
    """Scores of clean images, which played no part in what scored them.

    Attributes:
        scores: float64 M, higher is more suspicious.
        labels: int64 M, the classes of the images.
        classes: K.
    """

    scores: np.ndarray
    labels: np.ndarray
    classes: int

    @property
    def least(self) -> float:
        """The least p value that these images allow."""
        return 1 / (len(self.scores) + 1)

    def p_values(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The p values N in (0, 1] of scores float64 N of images of classes int64 N."""
        found = (1 + _above(self.scores, scores)) / (len(self.scores) + 1)
        for row in range(self.classes):
            mine, own = labels == row, self.scores[self.labels == row]
            if len(own) and mine.any():
                found[mine] = np.maximum(found[mine], _above(own, scores[mine]) / len(own))
        return np.asarray(found)

    def own_p_values(self) -> np.ndarray:
        """The p value M of each of these images among the others."""
        count = len(self.scores)
        found = _above(self.scores, self.scores) / count  # it counts itself: 1 + those above
        for row in range(self.classes):
            mine = self.labels == row
            own = self.scores[mine]
            if len(own) > 1:
                others = _above(own, own) - 1
                found[mine] = np.maximum(found[mine], others / (len(own) - 1))
        return np.asarray(found)


def joined(
    train: Sequence[np.ndarray], nulls: Sequence[Null], labels: np.ndarray
) -> tuple[np.ndarray, Null]:
    """Several statistics as one: the mean of -log p, of training images and of clean ones.

    Args:
        train: the scores of each statistic, float64 N.
        nulls: the clean scores of each, of the same images in the same order.
        labels: int64 N.

    Raises:
        ValueError: no statistic, or nulls of different images.
    """
    if not nulls or any(not np.array_equal(null.labels, nulls[0].labels) for null in nulls):
        raise ValueError("Statistics can be joined only on the same clean images.")
    each = zip(train, nulls, strict=True)
    scores = [-np.log(null.p_values(own, labels)) for own, null in each]
    clean = [-np.log(null.own_p_values()) for null in nulls]
    null = Null(np.mean(clean, axis=0), nulls[0].labels, nulls[0].classes)
    return np.asarray(np.mean(scores, axis=0)), null


def _above(pool: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many of `pool` are at least as large as each score, as floats."""
    rank = np.searchsorted(np.sort(pool), scores, side="left")
    return (len(pool) - rank).astype(np.float64)
