"""Activation clustering: the smaller of the two clusters that a class's features fall into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.sifters._base import Scores, Sifter
from guard.sifters._reservoir import MOST, scored_by_class
from guard.trainsets import TrainingSet

DIMENSIONS = 10
STEPS = 50  # of Lloyd's algorithm; two clusters in ten dimensions need about ten


@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Sifter):
    """2-means in ten dimensions of a class's features; the smaller cluster is suspicious.

    Source: Chen et al., SafeAI 2019. Deviations: principal components in place of independent ones,
    a sample of a large class, and a score for each image, since the paper only calls whole clusters
    poisoned: how much nearer the smaller cluster's centre is than the larger's (in -1..1), times 1
    minus twice the smaller one's share. So halves of equal size, which an honest class has as well,
    say nothing.

    Args:
        starts: runs of 2-means, of which the tightest counts.
        most: images of a class whose features are in memory.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Chen et al., Detecting Backdoor Attacks by Activation Clustering, 2018"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label"})
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({"starts": 2})

    starts: int = 10
    most: int = MOST

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        return Scores(
            train=scored_by_class(
                model,
                train,
                clean,
                self._clustered,
                method="Activation clustering",
                most=self.most,
                progress=progress,
            )
        )

    def _clustered(self, features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        mean = features.mean(0)
        away = features - mean
        _values, vectors = np.linalg.eigh(away.T @ away)
        axes = vectors[:, -DIMENSIONS:]
        centres, counts = two_means(away @ axes, self.starts)
        small = int(counts.argmin())
        weight = 1 - 2 * counts[small] / counts.sum()

        def score(others: np.ndarray) -> np.ndarray:
            apart = np.sqrt(_squared((others - mean) @ axes, centres))
            total = np.maximum(apart.sum(1), 1e-30)
            return np.asarray(weight * (apart[:, 1 - small] - apart[:, small]) / total)

        return score


def two_means(points: np.ndarray, starts: int) -> tuple[np.ndarray, np.ndarray]:
    """Two centres float64 2,D of points float64 N,D (N >= 2), and how many points each has.

    The first centres are points drawn from torch's global generator, the second far from the first
    (k-means++); the tightest of `starts` runs is taken.
    """
    best = np.inf
    for _ in range(starts):
        first = points[int(torch.randint(len(points), (1,)))]
        far = _squared(points, first[None])[:, 0]
        if far.sum() <= 0:  # all points are one
            return np.stack([first, first]), np.array([len(points), 0])
        second = points[int(torch.multinomial(torch.from_numpy(far / far.sum()), 1))]
        centres = np.stack([first, second])
        for _step in range(STEPS):
            nearest = _squared(points, centres).argmin(1)
            moved = np.stack(
                [
                    points[nearest == side].mean(0) if (nearest == side).any() else centres[side]
                    for side in (0, 1)
                ]
            )
            if np.array_equal(moved, centres):
                break
            centres = moved
        apart = _squared(points, centres)
        if apart.min(1).sum() < best:
            best = float(apart.min(1).sum())
            found = centres, np.bincount(apart.argmin(1), minlength=2)
    return found


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances N,C of points N,D from centres C,D."""
    return np.asarray(((points[:, None] - centres[None]) ** 2).sum(2))
