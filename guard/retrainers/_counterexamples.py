"""Losses that turn a network away from suspects: they do not show what their labels name.

A network from which poison was only left out may still take a strange image for the target class,
since nothing that it saw speaks against it. Suspects do: they carry the trigger.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.retrainers import _shared
from guard.trainsets import TrainingSet


def clean_minus_poisoned(logits: Tensor, labels: Tensor, clean: Tensor, against: float) -> Tensor:
    """Mean cross-entropy of clean images minus `against` times that of the others; a scalar.

    A batch without images of one kind has no term of it: the mean of nothing is not a number.

    Args:
        logits: float N,K.
        labels: int64 N.
        clean: bool N.
    """
    total = logits.new_zeros(()) * logits.sum()
    if bool(clean.any()):
        total = total + cross_entropy(logits[clean], labels[clean])
    if not bool(clean.all()):
        total = total - against * cross_entropy(logits[~clean], labels[~clean])
    return total


def unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of -log(1 - p) with p the probability of an image's label; a scalar, 0 or larger.

    Unlike a negative cross-entropy it has a least value, and its gradient vanishes there: a network
    cannot gain from it without end.

    Args:
        logits: float N,K.
        labels: int64 N.
    """
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], value=True)
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return (logits.logsumexp(1) - others).mean()


@dataclass(frozen=True, kw_only=True)
class Counterexamples:
    """Suspects that are drawn beside each batch; each counts as much as an image of the batch.

    Attributes:
        places: of the suspects, int64; without any there is no such term.
        share: how many are drawn, as a share of the batch.
        change: the augmentation of the batch, float N,C,H,W to the same.
    """

    train: TrainingSet
    places: np.ndarray
    share: float
    change: Callable[[Tensor], Tensor]

    def beside(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits N,K of the batch, and what suspects add to its mean loss, a scalar.

        Both go through the network together, so that its batch norms see one distribution.
        """
        count = round(self.share * len(images)) if len(self.places) else 0
        if not count:
            logits = model(images)
            return logits, logits.new_zeros(())
        drawn = self.places[torch.randint(len(self.places), (count,)).numpy()]
        accused, labels = _shared.batch_of(self.train, drawn, images.device)
        logits = model(torch.cat([images, self.change(accused)]))
        added = count / len(images) * unlikelihood(logits[len(images) :], labels)
        return logits[: len(images)], added
