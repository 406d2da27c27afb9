"""Distances from class means under one covariance, as few clean images allow to estimate it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gauss:
    """One normal distribution a class, all of the same covariance.

    Attributes:
        means: float64 K,D.
        root: float64 D,D; the inverse covariance is `root` times its transpose.
    """

    means: np.ndarray
    root: np.ndarray

    def distances(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Mahalanobis distances N of features N,D from the means of classes int64 N."""
        away = (features.astype(np.float64) - self.means[labels]) @ self.root
        return np.asarray(np.sqrt((away**2).sum(1)))


def fitted(features: np.ndarray, labels: np.ndarray, classes: int) -> Gauss:
    """The means of all classes and the tied covariance of float features N,D.

    Args:
        labels: int64 N; every one of the `classes` occurs.
    """
    data = features.astype(np.float64)
    means = np.stack([data[labels == row].mean(0) for row in range(classes)])
    values, vectors = np.linalg.eigh(shrunken(data - means[labels]))
    # A network without any variance has features that say nothing; all distances are then equal.
    least = max(float(values[-1]) * 1e-10, 1e-30)
    return Gauss(means, vectors / np.sqrt(np.maximum(values, least)))


def shrunken(residuals: np.ndarray) -> np.ndarray:
    """The covariance D,D of residuals float64 N,D, shrunken towards a multiple of the identity.

    Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", J. Multivariate Analysis 2004: the weight of the identity is the estimated variance
    of the sample covariance over its squared distance from that multiple.
    """
    count, size = residuals.shape
    sample = residuals.T @ residuals / count
    centre = float(np.trace(sample)) / size
    norm = float((sample**2).sum())
    apart = norm - size * centre**2
    noise = (float(((residuals**2).sum(1) ** 2).mean()) - norm) / count
    weight = 1.0 if apart <= 0 else min(1.0, max(0.0, noise / apart))
    shrunk: np.ndarray = (1 - weight) * sample
    shrunk[np.diag_indices(size)] += weight * centre
    return shrunk
