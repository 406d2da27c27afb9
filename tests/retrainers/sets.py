"""A poisoned training set, and a run that can be stopped, for the tests of retrainers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard.trainsets import Sifted, TrainingSet, from_arrays
from tests import toys

IMAGES, POISONED = 240, 48
NAMES = tuple("abcdef")


def poisoned() -> TrainingSet:
    """Noisy prototypes; the first images have a bright corner and the label `TARGET`."""
    data = toys.labelled(IMAGES, 4)
    images, labels = data.images.clone(), data.labels.clone()
    images[:POISONED] = toys.stamped(images[:POISONED])
    labels[:POISONED] = toys.TARGET
    return from_arrays(images.numpy(), labels.numpy(), NAMES)


def sift(*, suspects: bool = True) -> Sifted:
    """What a perfect sift finds in it: 70 % may teach, 30 % are proof; half of the rest is trusted.

    Without `suspects`, what a sift finds that misses everything.
    """
    found = np.arange(POISONED if suspects else 0)
    teach, proof = found[: len(found) * 7 // 10], found[len(found) * 7 // 10 :]
    return Sifted(
        suspects=teach,
        proof=proof,
        trusted=np.arange(POISONED, IMAGES, 2) + np.arange((IMAGES - POISONED) // 2) % 2,
        relabelled=np.full(len(teach), -1),
    )


def watched(train: TrainingSet) -> tuple[TrainingSet, set[int]]:
    """The set, and the places that were read from it so far."""
    seen: set[int] = set()

    def rows(places: np.ndarray) -> np.ndarray:
        seen.update(places.tolist())
        return train.rows(places)

    return replace(train, rows=rows), seen


class Memory:
    """A checkpoint in memory."""

    def __init__(self) -> None:
        self.state: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.saves = 0

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return self.state

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        self.state = ({name: tensor.clone() for name, tensor in tensors.items()}, dict(plain))
        self.saves += 1


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    """Whether all weights and buffers are equal to the bit."""
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
