"""How much surer the uploaded model is of an image's label than networks of clean images are.

Steps:
    1. for each fold of the clean set, train a small network on the others
    2. clean images: log p(label) of the upload minus that of the network which did not see them
    3. training images, batch by batch: the same, minus the mean over the networks
    4. give the upload as much confidence in clean images as it has in those that taught it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part, span
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.suitability import channels_last
from guard.ml.training.small_network import halved, learn, shrunk, small_network
from guard.sifters._base import Scores, Sifter
from guard.sifters._features import folds, require_clean, scored
from guard.trainsets import BATCH, Batch, TrainingSet

LEAST_TIMES_CHANCE = 2  # a reference that is no better says nothing about labels


@dataclass(frozen=True, kw_only=True)
class LabelGap(Sifter):
    """log p(label | image) of the upload, minus that of cross-fitted references.

    Source: our own design. An image whose label only its own model believes in was taught to that
    model by something that clean images do not show. The references also estimate its true class.

    A network is surer of the images that taught it than of others: without step 4, clean training
    images that are hard for the references have larger gaps than any clean image, and as many are
    accused as a small poisoning has. So the upload's log p of clean images is raised, rank by rank
    within the class, to that of the training images; it is never lowered.

    Args:
        folds: networks, each trained without a part of the clean set. Three leave each two thirds
            of the images, and cost half of what five would.
        seen: images that a network sees in training over all passes; after that many of 700
            clothes, they are right on 80 % of others.
        most_rounds: passes, at most: a small clean set is not learnt by heart without end.
        sure: a class is estimated where the references give it at least this on average: more than
            to all others together.
        min_per_class: clean images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    poisoning: ClassVar[frozenset[str]] = frozenset({"dirty-label", "clean-label", "all-to-all"})
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({"folds": 2, "seen": 3000})

    folds: int = 3
    seen: int = 25_000
    most_rounds: int = 100
    sure: float = 0.5
    min_per_class: int = 5

    def score(
        self, model: nn.Module, train: TrainingSet, clean: CleanSet, *, progress: Progress
    ) -> Scores:
        require_clean(clean, per_class=self.min_per_class, method="The label gap")
        if device_of(model).type == "cpu":
            channels_last(model)
        data, small = clean.together(), shrunk(clean.together())
        labels = data.labels.numpy()
        place = folds(labels, self.folds)
        believed = np.empty((len(labels), clean.classes), np.float32)
        networks = []
        for fold in range(self.folds):
            own = part(progress, 0.5 * fold / self.folds, 0.5 * (fold + 1) / self.folds)
            inside = torch.from_numpy(place == fold)
            networks.append(self._taught(model, small.pick(~inside), clean.classes, own))
            believed[place == fold] = _log_p(networks[-1], small.images[inside])
        right = float((believed.argmax(1) == labels).mean())
        if right < LEAST_TIMES_CHANCE / clean.classes:
            raise MethodFailed(
                f"Networks that were trained on the clean images are right on {right:.0%} of those "
                "that they have not seen, near chance; add images to the clean set.",
                code="not_learnt",
            )
        unseen = _of_label(_log_p(model, data.images), labels)
        taught = np.empty(len(train))
        estimated = np.full(len(train), -1, np.int64)

        def gap(batch: Batch) -> np.ndarray:
            images = torch.from_numpy(np.ascontiguousarray(batch.images))
            theirs = [_log_p(network, halved(images)) for network in networks]
            chance = np.exp(theirs).mean(0)
            estimated[batch.index] = np.where(chance.max(1) >= self.sure, chance.argmax(1), -1)
            taught[batch.index] = _of_label(_log_p(model, images), batch.labels)
            return taught[batch.index] - _of_label(np.mean(theirs, axis=0), batch.labels)

        found = scored(train, gap, span(progress, 0.5, 1.0, "training images"))
        null = raised(unseen, labels, taught, train.labels) - _of_label(believed, labels)
        return Scores(train=found, null=null, null_labels=labels, estimated=estimated)

    def _taught(
        self, model: nn.Module, data: Labelled, classes: int, progress: Progress
    ) -> nn.Module:
        network = small_network(data, classes).to(device_of(model)).train()
        rounds = max(1, min(self.most_rounds, self.seen // len(data)))
        with repeatable():
            learn(network, data, rounds=rounds, progress=progress)
        return network.eval().requires_grad_(requires_grad=False)


def raised(
    unseen: np.ndarray, labels: np.ndarray, taught: np.ndarray, taught_labels: np.ndarray
) -> np.ndarray:
    """What a network's log p of unseen images would be, had they taught it: at least what they are.

    Args:
        unseen: log p of the label, float64 M, of images of classes `labels`, int64 M.
        taught: the same of training images, float64 N, with `taught_labels`, int64 N.
    """
    found = unseen.copy()
    for row in np.unique(labels):
        mine, theirs = np.flatnonzero(labels == row), taught[taught_labels == row]
        if len(theirs):
            rank = np.argsort(np.argsort(unseen[mine], kind="stable"), kind="stable")
            known = np.quantile(theirs, (rank + 0.5) / len(mine))
            found[mine] = np.maximum(unseen[mine], known)
    return found


@torch.no_grad()
def _log_p(model: nn.Module, images: Tensor) -> np.ndarray:
    """Log probabilities float32 N,K of uint8 images N,C,H,W.

    Raises:
        MethodFailed: `non_finite`.
    """
    device, found = device_of(model), []
    with repeatable():
        for some in images.split(BATCH):
            logits = model(some.to(device).float().div_(255))
            if not bool(torch.isfinite(logits).all()):
                raise MethodFailed("The model gives logits that are not finite.", code="non_finite")
            found.append(logits.log_softmax(1).cpu().numpy())
    return np.concatenate(found)


def _of_label(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The number of each row's label, float64 N of N,K."""
    return numbers[np.arange(len(labels)), labels].astype(np.float64)
