"""What is known of a training set before it is sifted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest
from guard.core.trainset import TrainingSetFacts, TrainingSetSource
from guard.trainsets import TrainingSet, check_clean, check_digest, for_model, overlap, with_overlap


@dataclass(frozen=True)
class Examined:
    """The facts of a set, overlap included, and counts for people."""

    facts: TrainingSetFacts
    counts: Mapping[str, int]


def examine(
    train: TrainingSet,
    source: TrainingSetSource,
    clean: CleanSetFacts,
    images: np.ndarray,
    manifest: Manifest | None = None,
) -> Examined:
    """Compare a set with its clean set (images uint8 M,C,H,W), and with a model where one is given.

    Raises:
        TrainingSetError: it is not this model's, or a sift could not use this clean set.
    """
    check_digest(train, source)
    if manifest is not None:
        train = for_model(train, source, manifest)
    check_clean(train, clean)
    found = overlap(train, images)
    counts = {"overlap_exact": found.exact, "overlap_clean": int(found.clean.sum())}
    return Examined(with_overlap(train, found).facts, counts)
