"""One pass of a network over images: logits and the features that its last layer takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of
from guard.ml.networks.dataflow import Layer, with_features
from guard.ml.networks.heads import layer_of
from guard.ml.precision import repeatable
from guard.ml.suitability import channels_last
from guard.trainsets import BATCH, Batch, TrainingSet


@dataclass(frozen=True)
class Network:
    """A network and its last layer.

    Raises:
        MethodFailed: from its methods, `non_finite`.
    """

    model: nn.Module
    head: Layer

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits N,K and features N,D of float images N,C,H,W in [0, 1]; differentiable."""
        return with_features(self.model, self.head, images)

    @torch.no_grad()
    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log probabilities float32 N,K and features float32 N,D of uint8 images N,C,H,W."""
        with repeatable():
            logits, features = self.run(floats(images, device_of(self.model)))
        if not bool(torch.isfinite(logits).all() and torch.isfinite(features).all()):
            raise MethodFailed("The model gives numbers that are not finite.", code="non_finite")
        return logits.log_softmax(1).cpu().numpy(), features.cpu().numpy()

    def of_clean(self, data: Labelled) -> tuple[np.ndarray, np.ndarray]:
        """`outputs` of a whole clean set."""
        parts = [self.outputs(part.numpy()) for part in data.images.split(BATCH)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([p[1] for p in parts])


def network_of(model: nn.Module, clean: CleanSet, *, method: str) -> Network:
    """`model`, which is a sifter's own copy, ready for passes.

    Raises:
        MethodFailed: `no_head`: it has no last layer with one output a class.
    """
    if device_of(model).type == "cpu":
        channels_last(model)
    found = layer_of(model, clean)
    if found is None:
        raise MethodFailed(
            f"{method} reads the input of the network's last linear layer, and this network has "
            "none with one output a class.",
            code="no_head",
        )
    return Network(model, found[0])


def floats(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 images N,C,H,W as float32 in [0, 1] on `device`."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).float().div_(255)


def scored(
    train: TrainingSet,
    score: Callable[[Batch], np.ndarray],
    watch: Callable[[float], None],
    index: np.ndarray | None = None,
) -> np.ndarray:
    """The scores float64 n of the places int64 `index` (of all images), batch by batch."""
    count = len(train) if index is None else len(index)
    found, done = np.empty(count), 0
    for batch in train.batches(index=index):
        found[done : done + len(batch.labels)] = score(batch)
        done += len(batch.labels)
        watch(done / count)
    return found


def by_class(train: TrainingSet) -> Iterator[np.ndarray]:
    """The places int64 n of each class that has any."""
    for row in range(train.classes):
        places = np.flatnonzero(train.labels == row)
        if len(places):
            yield places


def require_clean(clean: CleanSet, *, per_class: int, method: str) -> None:
    """Refuse a clean set with fewer images than this of some class, both parts counted.

    Raises:
        MethodFailed: `too_few_images`.
    """
    counts = torch.bincount(clean.together().labels, minlength=clean.classes)
    rarest = int(counts.argmin())
    if counts[rarest] < per_class:
        raise MethodFailed(
            f"{method} needs at least {per_class} clean images of every class; class {rarest} has "
            f"{int(counts[rarest])}. Add images to the clean set.",
            code="too_few_images",
        )


def folds(labels: np.ndarray, count: int) -> np.ndarray:
    """The fold (int64 N, 0..count - 1) of each clean image, even within every class.

    The order within a class is drawn from torch's global generator.
    """
    found = np.empty(len(labels), np.int64)
    for row in np.unique(labels):
        places = np.flatnonzero(labels == row)
        found[places[torch.randperm(len(places)).numpy()]] = np.arange(len(places)) % count
    return found
