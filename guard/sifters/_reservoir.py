"""Statistics that need the features of many images at once: one class at a time, a sample each."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.sifters._features import by_class, network_of
from guard.trainsets import TrainingSet

MOST = 5000  # images whose features are in memory: 10 MB at 512 features

#: From the features float64 n,D of a class's sample to the function that scores features N,D.
Fit = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]


def scored_by_class(
    model: nn.Module,
    train: TrainingSet,
    clean: CleanSet,
    fit: Fit,
    *,
    method: str,
    most: int,
    progress: Progress,
) -> np.ndarray:
    """The scores float64 N of all images, each class by what `fit` makes of its own features.

    Classes with fewer than two images score 0. A class of more than `most` images is read a second
    time, since only the features of a sample are kept.

    Raises:
        MethodFailed: `no_head`, `non_finite`.
    """
    network = network_of(model, clean, method=method)
    found, done = np.zeros(len(train)), 0
    for places in by_class(train):
        sample = places
        if len(places) > most:
            sample = np.sort(places[torch.randperm(len(places))[:most].numpy()])
        parts = []
        for batch in train.batches(index=sample):
            parts.append(network.outputs(batch.images)[1].astype(np.float64))
            progress(min(1.0, done / len(train)), "training images")
        seen = np.concatenate(parts)
        if len(sample) > 1:
            score = fit(seen)
            found[sample] = score(seen)
            for batch in train.batches(index=np.setdiff1d(places, sample)):
                found[batch.index] = score(network.outputs(batch.images)[1].astype(np.float64))
                progress(min(1.0, done / len(train)), "training images")
        done += len(places)
    progress(1.0, "done")
    return found
