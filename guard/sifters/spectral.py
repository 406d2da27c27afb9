"""Spectral signatures: how far an image lies along its class's direction of largest variance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.sifters._base import Scores, Sifter
from guard.sifters._reservoir import MOST, scored_by_class
from guard.trainsets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Spectral(Sifter):
    """The squared projection on the top singular vector of a class's centred features.

    Source: Tran, Li and Madry, NeurIPS 2018, algorithm 1. The paper trains a network for it; here
    the uploaded model is that network. Deviation: mean and direction come from a sample of a large
    class. It ranks, and asks its reader for the share of poison.

    Args:
        most: images of a class whose features are in memory.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Tran et al., Spectral Signatures in Backdoor Attacks, NeurIPS 2018"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label", "clean-label"})

    most: int = MOST

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        return Scores(
            train=scored_by_class(
                model,
                train,
                clean,
                along_the_top,
                method="The spectral signature",
                most=self.most,
                progress=progress,
            )
        )


def along_the_top(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The score of features float64 N,D by the mean and top direction of float64 n,D."""
    mean = features.mean(0)
    away = features - mean
    _values, vectors = np.linalg.eigh(away.T @ away)
    top = vectors[:, -1]
    return lambda others: np.asarray(((others - mean) @ top) ** 2)
