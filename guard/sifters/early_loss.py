"""Early loss: poison is learnt before everything else, so that its loss is low first."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.progress import Progress, span
from guard.ml.cleanset import CleanSet
from guard.ml.precision import repeatable
from guard.sifters._base import Scores, Sifter
from guard.sifters._features import network_of, scored
from guard.sifters._throwaway import descend, fresh
from guard.trainsets import Batch, TrainingSet

BATCH, RATE, MOMENTUM, DECAY = 64, 0.1, 0.9, 1e-4


@dataclass(frozen=True, kw_only=True)
class EarlyLoss(Sifter):
    """Minus the loss of a fresh network after a few passes with local gradient ascent.

    Source: Li et al., Anti-Backdoor Learning, NeurIPS 2021, section 3.2: each image's loss l is
    replaced by sign(l - gamma) l, which keeps the loss of clean images near gamma, while that of
    poison falls through. SGD 0.1, momentum 0.9, weight decay 1e-4, batches of 64. Deviation: five
    passes, where the paper has 20 of 100; in its own curves poison is apart after the first few.
    It ranks; what a clean-label attack poisons is learnt no earlier than its class.

    Args:
        epochs: passes over the set.
        gamma: the loss that local gradient ascent keeps.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Li et al., Anti-Backdoor Learning, NeurIPS 2021"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label"})
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({"epochs": 1})

    epochs: int = 5
    gamma: float = 0.5

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        made = fresh(model, clean)
        network = network_of(made, clean, method="The early loss")
        optimiser = torch.optim.SGD(
            made.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
        )

        def kept(images: Tensor, labels: Tensor) -> Tensor:
            each = functional.cross_entropy(made(images), labels, reduction="none")
            return ((each.detach() - self.gamma).sign() * each).mean()

        made.train()
        for epoch in range(self.epochs):
            watch = span(
                progress, 0.9 * epoch / self.epochs, 0.9 * (epoch + 1) / self.epochs, "training"
            )
            with repeatable():
                descend(train, made, optimiser, kept, batch=BATCH, watch=watch)
        made.eval().requires_grad_(requires_grad=False)

        def surest(batch: Batch) -> np.ndarray:
            chances = network.outputs(batch.images)[0]
            return chances[np.arange(len(batch.labels)), batch.labels].astype(np.float64)

        found = scored(train, surest, span(progress, 0.9, 1.0, "training images"))
        return Scores(train=found)
