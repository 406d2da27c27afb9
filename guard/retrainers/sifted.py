"""Drop what the sift accuses, and train from scratch on the rest."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from guard.core.manifest import Manifest
from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.ml.networks import fresh as fresh_network
from guard.ml.training.augment import mirrored, shifted
from guard.ml.training.checkpoints import Checkpoint
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _shared
from guard.retrainers._base import Retrained, Retrainer
from guard.trainsets import Sifted as Sift
from guard.trainsets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Sifted(Retrainer):
    """Cross-entropy on all images but suspects and proof; no method's idea beside that.

    It removes a backdoor as far as the sift found its poison: what was missed teaches again. Of all
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
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none; the obvious use of a sift"
    fast = MappingProxyType({"epochs": 20, "batch": 32})

    epochs: int = 20
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 5e-4
    mirror: bool = False
    clean_images: bool = False
    least: int = 10

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
        places = _shared.left(train, sifted.suspects, sifted.proof)
        _shared.require_classes(
            train.labels[places],
            train.classes,
            least=self.least,
            what="images that no sift accuses",
            method=method,
        )
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
        Resumable(checkpoint, progress).fit(stage, 0.0, 1.0)
        return Retrained(model, {"images": float(len(places) + extra)})
