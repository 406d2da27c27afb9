"""Drop what the sift accuses and what looks like it, and train from scratch on the rest.

A sift misses some of the poison, and a tenth of it teaches the backdoor anew. But what was found
shows what to look for. So a network of the same architecture is trained first, with one class more
than the model: trusted and clean images have their labels, suspects have the class that is new. It
learns what suspects have in common that no other image has, and whatever it puts among them is left
out as well (decision 0075).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from guard.core.manifest import Manifest
from guard.core.progress import Progress, span
from guard.ml.cleanset import CleanSet
from guard.ml.networks import fresh as fresh_network
from guard.ml.training.augment import mirrored, shifted
from guard.ml.training.checkpoints import Checkpoint
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _shared
from guard.retrainers._base import Retrained, Retrainer
from guard.trainsets import Sifted as Sift
from guard.trainsets import TrainingSet

# Of the progress, once it is learnt what suspects look like, and known which images are like them.
LEARNT, LOOKED = 0.35, 0.4
NOT_ALIKE = "images that are not like accused ones either (alike=1 leaves none of these out)"


@dataclass(frozen=True, kw_only=True)
class Sifted(Retrainer):
    """Cross-entropy on all images but suspects, proof, and those that are like suspects.

    It removes a backdoor as far as its poison is found: what is missed teaches again. Of all
    that we measured it cost the least accuracy. Mirroring is off since it changes the class of
    digits, letters and traffic signs, and nobody states here what the images show.

    Args:
        epochs: passes; 20 with a one-cycle rate bring small networks to where more passes gain
            little.
        batch: images a step.
        rate: AdamW's, at its highest, less for wide layers (`by_fan_in`).
        weight_decay: AdamW's.
        mirror: mirror half of the images left to right.
        clean_images: train on the clean set's search and calibration parts as well.
        least: images that every class must keep.
        alike: the probability of the new class from which on an image is left out; 1 looks for
            none.
        look_epochs: passes of the network that looks for them.
        look_share: of its images are suspects, at least; all are repeated as often.
        look_suspects: fewer have nothing in common that can be learnt; then only they are dropped.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "none; the obvious use of a sift"
    fast = MappingProxyType({"epochs": 20, "batch": 32, "look_epochs": 6})

    epochs: int = 20
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 5e-4
    mirror: bool = False
    clean_images: bool = False
    least: int = 10
    alike: float = 0.3
    look_epochs: int = 15
    look_share: float = 0.1
    look_suspects: int = 10

    def retrain(
        self,
        manifest: Manifest,
        train: TrainingSet,
        clean: CleanSet,
        sifted: Sift,
        *,
        checkpoint: Checkpoint,
        progress: Progress,
        device: torch.device,
    ) -> Retrained:
        method = "Retraining without suspects"
        _shared.require(manifest, train, clean, sifted, method=method)
        run = Resumable(checkpoint, progress)
        left = _shared.left(train, sifted.suspects, sifted.proof)
        self._require_classes(train, left, method, "images that no sift accuses")
        watch = span(progress, LEARNT, LOOKED, "looking for more")
        looked = self._alike(
            manifest, train, clean, sifted, left, run=run, watch=watch, device=device
        )
        places = left[~looked]
        self._require_classes(train, places, method, NOT_ALIKE)
        more = clean.together()
        model = fresh_network.fresh(manifest, device)
        extra = len(more) if self.clean_images else 0

        def loss(index: np.ndarray) -> Tensor:
            inner, outer = index[index < len(places)], index[index >= len(places)] - len(places)
            images, labels = _shared.batch_of(train, places[inner], device)
            if len(outer):
                own = more.pick(torch.from_numpy(outer))
                images = torch.cat([images, own.floats(device)])
                labels = torch.cat([labels, own.labels.to(device)])
            images = shifted(images, _shared.reach(train))
            return cross_entropy(model(mirrored(images) if self.mirror else images), labels)

        stage = Stage(
            name="training",
            modules={"network": model},
            optimiser=_shared.adam(model.parameters(), self.rate, self.weight_decay),
            images=len(places) + extra,
            loss=loss,
            epochs=self.epochs,
            batch=self.batch,
        )
        run.fit(stage, LOOKED, 1.0)
        return Retrained(
            model, {"images": float(len(places) + extra), "alike": float(looked.sum())}
        )

    def _require_classes(
        self, train: TrainingSet, places: np.ndarray, method: str, what: str
    ) -> None:
        _shared.require_classes(
            train.labels[places], train.classes, least=self.least, what=what, method=method
        )

    def _alike(
        self,
        manifest: Manifest,
        train: TrainingSet,
        clean: CleanSet,
        sifted: Sift,
        places: np.ndarray,
        *,
        run: Resumable,
        watch: Callable[[float], None],
        device: torch.device,
    ) -> np.ndarray:
        """Which of the images at `places` are like suspects, as bool n; none where nobody knows."""
        own, other = sifted.suspects, np.setdiff1d(sifted.trusted, sifted.suspects)
        other = np.setdiff1d(other, sifted.proof)
        nobody = np.zeros(len(places), bool)
        if self.alike >= 1 or len(own) < self.look_suspects or not len(other):
            return nobody
        more, new = clean.together(), manifest.num_classes
        wider = replace(manifest, num_classes=new + 1, label_names=())
        network = fresh_network.fresh(wider, device)
        others = len(other) + len(more)
        times = _times(self.look_share, others, len(own))

        def loss(index: np.ndarray) -> Tensor:
            at = index[index < len(other)]
            images, labels = _shared.batch_of(train, other[at], device)
            given = index[(index >= len(other)) & (index < others)] - len(other)
            clean_ones = more.pick(torch.from_numpy(given))
            at = (index[index >= others] - others) % len(own)
            accused, _ = _shared.batch_of(train, own[at], device)
            images = torch.cat([images, clean_ones.floats(device), accused])
            wanted = [labels, clean_ones.labels.to(device), labels.new_full((len(at),), new)]
            return cross_entropy(network(shifted(images, _shared.reach(train))), torch.cat(wanted))

        stage = Stage(
            name="looking for more",
            modules={"look": network},
            optimiser=_shared.adam(network.parameters(), self.rate, self.weight_decay),
            images=others + times * len(own),
            loss=loss,
            epochs=self.look_epochs,
            batch=self.batch,
        )
        run.fit(stage, 0.0, LEARNT)
        network.eval()
        rows = np.full(len(places), new)
        found = _shared.chances(network, train, places, rows, device, watch=watch)
        return found >= self.alike


def _times(share: float, others: int, own: int) -> int:
    """How often `own` images are repeated so that they are a `share` of all, at least."""
    return max(1, math.ceil(share * others / ((1 - share) * own)))
