"""A training set as methods see it: labels in memory, images on request."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from guard.core.digests import json_digest, sha256
from guard.core.trainset import TrainingSetFacts

#: Images of one batch where the caller does not say.
BATCH = 64


@dataclass(frozen=True)
class Batch:
    """Some images: places int64 N, images uint8 N,C,H,W, labels int64 N."""

    index: np.ndarray
    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TrainingSet:
    """Labelled images that lie on disk.

    Attributes:
        facts: what is known of the set.
        labels: int64 N, the label of each image as its uploader gave it.
        rows: images uint8 n,C,H,W for places int64 n, in the order of the places; reads from disk.
        name_of: what an image is called where the set lies (a file, a row).
    """

    facts: TrainingSetFacts
    labels: np.ndarray
    rows: Callable[[np.ndarray], np.ndarray]
    name_of: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.facts.class_names)

    def batches(self, size: int = BATCH, *, index: np.ndarray | None = None) -> Iterator[Batch]:
        """One pass over the set, or over the places `index` (int64) in their order."""
        places = np.arange(len(self)) if index is None else np.asarray(index, np.int64)
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            yield Batch(chosen, self.rows(chosen), self.labels[chosen])


def from_arrays(
    images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], *, uri: str = "memory"
) -> TrainingSet:
    """A training set of arrays: images uint8 N,C,H,W (a memory map, too), labels integers N."""
    own = labels.astype(np.int64)
    channels, height, width = images.shape[1:]
    facts = TrainingSetFacts(
        uri=uri,
        digest=json_digest([sha256(images[i].tobytes()) for i in range(len(own))] + own.tolist()),
        images=len(own),
        total=len(own),
        channels=channels,
        height=height,
        width=width,
        class_names=class_names,
        per_class=tuple(np.bincount(own, minlength=len(class_names)).tolist()),
    )
    return TrainingSet(facts, own, lambda places: images[places], lambda place: f"image {place}")
