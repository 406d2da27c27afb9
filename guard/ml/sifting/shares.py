"""What a model does with accused images: the share that it classifies as they are labelled."""

import numpy as np
import torch
from torch import nn

from guard.core.sift import Share
from guard.ml.cleanset import Labelled
from guard.ml.measure import predict
from guard.ml.statistics import wilson


def as_labelled(images: np.ndarray, labels: np.ndarray) -> Labelled:
    """Images uint8 N,C,H,W and labels N of a training set, as methods take them."""
    return Labelled(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
    )


def share(successes: int, trials: int) -> Share:
    """A share with its Wilson interval at 95 %; a share of nothing is 0, and may be all."""
    low, high = wilson(successes, trials)
    return Share(
        successes=successes,
        trials=trials,
        estimate=successes / trials if trials else 0.0,
        low=low,
        high=high,
    )


def obeyed(model: nn.Module, data: Labelled) -> Share:
    """The share of images that the model classifies as they are labelled.

    Dirty-label poison is exact triggered images of any family: of the upload this is how far it
    learnt the poison, and of a repaired model, on images that taught the repair nothing, it is an
    estimate of the true trigger's ASR.

    Raises:
        MethodFailed: a logit is not finite.
    """
    hits = int((predict(model, data) == data.labels).sum())
    return share(hits, len(data))
