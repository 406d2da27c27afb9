"""What D-ST's classifier sees: the inputs of a network's last layer."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.dataflow import Layer, with_features
from guard.ml.networks.heads import Head, Seen, layer_of
from guard.retrainers import _shared
from guard.trainsets import TrainingSet

BATCH = 256  # images of a pass without gradients


def classifier_of(model: ImageModel, clean: CleanSet) -> tuple[Layer, Head]:
    """The model's last linear layer, in eval mode; two clean images are run.

    Raises:
        MethodFailed: `no_head`.
    """
    found = layer_of(model.eval(), clean)
    if found is None:
        raise MethodFailed(
            "D-ST finds no last linear layer with one output a class; this architecture has no "
            "classifier that it could train by itself.",
            code="no_head",
        )
    return found


def width(layer: Layer) -> int:
    """How many features the layer takes."""
    return 0 if layer.weight is None else int(layer.weight.shape[1])


def read(
    train: TrainingSet, places: np.ndarray, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images float N,C,H,W in [0, 1] and labels N at these places, in batches."""
    for start in range(0, len(places), BATCH):
        yield _shared.batch_of(train, places[start : start + BATCH], device)


@torch.no_grad()
def encoded(
    model: ImageModel,
    layer: Layer,
    batches: Iterable[tuple[Tensor, Tensor]],
    watch: Callable[[], None],
) -> Seen:
    """Features N,D, logits N,K and labels N of all batches, on the CPU; `watch` runs after each."""
    classes = 0 if layer.weight is None else len(layer.weight)
    parts = [(torch.empty(0, width(layer)), torch.empty(0, classes), torch.empty(0).long())]
    for images, labels in batches:
        logits, features = with_features(model, layer, images)
        parts.append((features.cpu(), logits.cpu(), labels.cpu()))
        watch()
    features, logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, logits, labels


@torch.no_grad()
def agreeing(
    model: ImageModel, train: TrainingSet, clean: CleanSet, places: np.ndarray, lost: float
) -> np.ndarray:
    """Whose labels the model finds as possible as those of clean images, bool n.

    Args:
        model: in eval mode; its classifier has not seen the calibration images.
        lost: the share (0..1) of calibration images whose label it finds less possible.
    """
    device = model.mean.device
    own = [
        model(images).softmax(1).gather(1, labels[:, None])[:, 0].cpu()
        for images, labels in clean.calibration.batches(BATCH, device=device)
    ]
    limit = np.quantile(torch.cat(own).numpy(), lost)
    return _shared.chances(model, train, places, train.labels[places], device) >= limit
