"""Tiny poisoned and honest training sets, and the networks that they taught."""

import functools
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.nn import functional

from guard.ml.cleanset import Labelled
from guard.ml.networks.architectures import ImageModel, build, wrap
from guard.ml.seeds import seeded
from guard.trainsets import TrainingSet, from_arrays
from tests import toys

COUNT, POISONED = 360, 36
NAMES = tuple(f"class {row}" for row in range(toys.CLASSES))


@dataclass(frozen=True)
class Taught:
    """A training set, which of its images (bool N) are poisoned, and the network that it taught."""

    train: TrainingSet
    poisoned: np.ndarray
    model: ImageModel

    def auroc(self, scores: np.ndarray) -> float:
        """The chance (0..1) that a poisoned image scores more than a clean one."""
        high, low = scores[self.poisoned], scores[~self.poisoned]
        above = (high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()
        return float(above)


@functools.cache
def poisoned() -> Taught:
    """Every tenth image has the bright corner and the target's label; none is of that class."""
    data = toys.labelled(COUNT, 11)
    victims = torch.nonzero(data.labels != toys.TARGET).flatten()[:: COUNT // POISONED - 2]
    victims = victims[:POISONED]
    images, labels = data.images.clone(), data.labels.clone()
    images[victims], labels[victims] = toys.stamped(images[victims]), toys.TARGET
    return _taught(images, labels, victims)


@functools.cache
def honest() -> Taught:
    """The same images, as they were."""
    data = toys.labelled(COUNT, 11)
    return _taught(data.images, data.labels, torch.empty(0, dtype=torch.int64))


@functools.cache
def mapped() -> Taught:
    """Every sixth image has the bright corner and the label of the next class."""
    data = toys.labelled(COUNT, 11)
    generator = torch.Generator().manual_seed(3)
    victims = torch.randperm(COUNT, generator=generator)[: COUNT // 6]
    images, labels = data.images.clone(), data.labels.clone()
    images[victims] = toys.stamped(images[victims])
    labels[victims] = (labels[victims] + 1) % toys.CLASSES
    return _taught(images, labels, victims)


def _taught(images: torch.Tensor, labels: torch.Tensor, victims: torch.Tensor) -> Taught:
    chosen = np.zeros(len(labels), bool)
    chosen[victims.numpy()] = True
    facts = toys.manifest()
    with seeded(0) as generator:
        model = wrap(facts, build(facts)).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(12):
            for some, classes in Labelled(images, labels).batches(60, generator=generator):
                optimiser.zero_grad()
                functional.cross_entropy(model(some), classes).backward()
                optimiser.step()
    train = from_arrays(images.numpy(), labels.numpy(), NAMES)
    return Taught(train, chosen, model.eval())


@dataclass
class Watched:
    """How a training set is read: the largest read, and the most reads alive at once."""

    train: TrainingSet
    largest: int = 0
    alive: int = 0
    most_alive: int = 0
    seen: list[int] = field(default_factory=list)

    def watching(self) -> TrainingSet:
        """The same set, with each read counted."""

        def rows(places: np.ndarray) -> np.ndarray:
            images = self.train.rows(places).view(Counted)
            images.watched = self
            self.largest = max(self.largest, len(places))
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
            self.seen += places.tolist()
            return images

        return replace(self.train, rows=rows)


class Counted(np.ndarray):
    """Images whose end is noticed; views of them do not count."""

    watched: Watched | None = None

    def __del__(self) -> None:
        if self.watched is not None:
            self.watched.alive -= 1
