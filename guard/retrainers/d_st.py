"""D-ST: learn features without trusting labels of suspects, then a classifier against them."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import InputError, MethodFailed
from guard.core.manifest import Manifest
from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.ml.networks import fresh as fresh_network
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.dataflow import Layer, with_features
from guard.ml.networks.heads import Head, fit_against, layer_of
from guard.ml.training.augment import jittered, mirrored, resized_crops
from guard.ml.training.checkpoints import Checkpoint
from guard.ml.training.contrastive import contrastive_loss, positives
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _shared
from guard.retrainers._base import Retrained, Retrainer
from guard.trainsets import Sifted, TrainingSet

HEADS = ("logistic", "sgd")
_ENCODE = 256  # images of a pass without gradients
_NAME = "D-ST"


@dataclass(frozen=True, kw_only=True)
class DSt(Retrainer):
    """A semi-supervised contrastive extractor, and a classifier on the trusted images only.

    Two views of each image are drawn together; only trusted images of one label are drawn together
    as well. The classifier then minimises the cross-entropy of the trusted images minus
    `against` times that of the suspects. Images that are neither only take part in the contrast.

    Deviations from the paper: trusted and suspect images are those of the guard's sift, not of FCT,
    whose separation we could not confirm; columns of the mask are masked like its rows
    (`positives`); the classifier is the minimum of a convex problem, as stochastic steps at rate 5
    are fragile; Adam in place of SGD at rate 0.5, which suits one network; mirroring is off, since
    it changes the class of digits and signs.

    Args:
        epochs: passes with two views each; the paper has 200 on CIFAR-10. On 3,000 clothes ten
            were as accurate as plain training.
        batch: images a step, two views of each; a contrast needs many.
        rate: AdamW's, at its highest, less for wide layers.
        weight_decay: AdamW's, of the paper's code.
        temperature: of the contrast; `base` only scales the loss.
        base: the paper's base temperature.
        projection: the dimension in which views are compared.
        area: the least share (0..1) of the image's area that a view shows.
        mirror: mirror half of the views left to right.
        head: "logistic" (L-BFGS on features of unchanged images), or "sgd" by the paper.
        against: lambda of the suspects' cross-entropy; more costs accuracy, by the paper.
        head_decay: of the classifier's weights; it bounds what the suspects' term may do.
        head_images: trusted and suspect images each that the classifier sees, at most.
        head_epochs: passes of "sgd".
        head_rate: of "sgd".
        least: trusted images that every class must have.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "Chen et al., Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples, "
        "NeurIPS 2022"
    )
    fast = MappingProxyType({"epochs": 6, "batch": 64})

    epochs: int = 20
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 1e-4
    temperature: float = 0.1
    base: float = 0.07
    projection: int = 128
    area: float = 0.2
    mirror: bool = False
    head: str = "logistic"
    against: float = 0.001
    head_decay: float = 1e-3
    head_images: int = 50_000
    head_epochs: int = 10
    head_rate: float = 0.01
    least: int = 5

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise InputError(f"D-ST's head is one of {', '.join(HEADS)}, not {self.head!r}.")

    def retrain(
        self,
        manifest: Manifest,
        train: TrainingSet,
        clean: CleanSet,
        sifted: Sifted,
        *,
        checkpoint: Checkpoint,
        progress: Progress,
        device: torch.device,
    ) -> Retrained:
        _shared.require(manifest, train, clean, sifted, method=_NAME)
        places = _shared.left(train, sifted.proof)
        trusted = np.setdiff1d(sifted.trusted, np.concatenate([sifted.suspects, sifted.proof]))
        _shared.require_classes(
            train.labels[trusted],
            train.classes,
            least=self.least,
            what="images that the sift trusts",
            method=_NAME,
        )
        model = fresh_network.fresh(manifest, device)
        layer, head = _classifier(model, clean)
        run = Resumable(checkpoint, progress)
        run.fit(self._extractor(model, layer, train, places, trusted), 0.0, 0.95)
        model.eval()
        suspects = np.setdiff1d(sifted.suspects, sifted.proof)
        if self.head == "sgd":
            run.fit(self._steps(model, head, train, trusted, suspects), 0.95, 1.0)
        else:
            self._solve(model, layer, head, train, trusted, suspects, progress)
        return Retrained(model, {"trusted": float(len(trusted)), "suspects": float(len(suspects))})

    def _views(self, images: Tensor) -> Tensor:
        made = jittered(resized_crops(images, self.area))
        return mirrored(made) if self.mirror else made

    def _extractor(
        self,
        model: ImageModel,
        layer: Layer,
        train: TrainingSet,
        places: np.ndarray,
        trusted: np.ndarray,
    ) -> Stage:
        """The stage that trains everything before the classifier."""
        device = model.mean.device
        width = _width(layer)
        projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.projection)
        ).to(device)
        known = np.zeros(len(train), bool)
        known[trusted] = True
        model.train()

        def loss(index: np.ndarray) -> Tensor:
            chosen = places[index]
            images, labels = _shared.batch_of(train, chosen, device)
            views = torch.cat([self._views(images), self._views(images)])
            features = with_features(model, layer, views)[1]
            mask = positives(labels, torch.from_numpy(known[chosen]).to(device))
            return contrastive_loss(
                projection(features), mask, temperature=self.temperature, base=self.base
            )

        return Stage(
            name="extractor",
            modules={"network": model, "projection": projection},
            optimiser=_shared.adam(
                [*model.parameters(), *projection.parameters()], self.rate, self.weight_decay
            ),
            images=len(places),
            loss=loss,
            epochs=self.epochs,
            batch=self.batch,
        )

    def _solve(
        self,
        model: ImageModel,
        layer: Layer,
        head: Head,
        train: TrainingSet,
        trusted: np.ndarray,
        suspects: np.ndarray,
        progress: Progress,
    ) -> None:
        """Put the classifier with the least loss into the model."""
        seen = [
            _encoded(model, layer, train, _some(places, self.head_images), progress)
            for places in (trusted, suspects)
        ]
        fitted = fit_against(
            head,
            seen[0],
            seen[1],
            against=self.against,
            decay=self.head_decay,
            watch=lambda: progress(0.99, "classifier"),
        )
        progress(1.0, "classifier")
        if not fitted:
            raise MethodFailed(
                "D-ST finds an operation behind this network's last layer; use head=sgd.",
                code="no_head",
            )

    def _steps(
        self,
        model: ImageModel,
        head: Head,
        train: TrainingSet,
        trusted: np.ndarray,
        suspects: np.ndarray,
    ) -> Stage:
        """The stage that trains the classifier alone by SGD."""
        model.requires_grad_(requires_grad=False)
        weights = [weight.requires_grad_() for weight in head if weight is not None]
        places = np.concatenate([trusted, suspects])
        device = model.mean.device

        def loss(index: np.ndarray) -> Tensor:
            images, labels = _shared.batch_of(train, places[index], device)
            clean = torch.from_numpy(index < len(trusted)).to(device)
            return clean_minus_poisoned(model(images), labels, clean, self.against)

        return Stage(
            name="classifier",
            modules={"network": model},
            optimiser=torch.optim.SGD(weights, lr=self.head_rate, momentum=0.9),
            images=len(places),
            loss=loss,
            epochs=self.head_epochs,
            batch=self.batch,
        )


def clean_minus_poisoned(logits: Tensor, labels: Tensor, clean: Tensor, against: float) -> Tensor:
    """Mean cross-entropy of clean images minus `against` times that of the others; a scalar.

    A batch without images of one kind has no term of it: the mean of nothing is not a number.

    Args:
        logits: float N,K.
        labels: int64 N.
        clean: bool N.
    """
    total = logits.new_zeros(()) * logits.sum()
    if bool(clean.any()):
        total = total + cross_entropy(logits[clean], labels[clean])
    if not bool(clean.all()):
        total = total - against * cross_entropy(logits[~clean], labels[~clean])
    return total


def _classifier(model: ImageModel, clean: CleanSet) -> tuple[Layer, Head]:
    found = layer_of(model.eval(), clean)
    if found is None:
        raise MethodFailed(
            "D-ST finds no last linear layer with one output a class; this architecture has no "
            "classifier that it could train by itself.",
            code="no_head",
        )
    return found


def _width(layer: Layer) -> int:
    return 0 if layer.weight is None else int(layer.weight.shape[1])


def _some(places: np.ndarray, most: int) -> np.ndarray:
    return places[torch.randperm(len(places)).numpy()[:most]] if len(places) > most else places


@torch.no_grad()
def _encoded(
    model: ImageModel, layer: Layer, train: TrainingSet, places: np.ndarray, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Features N,D, logits N,K and labels N of these images, on the CPU."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(places), _ENCODE):
        chosen = places[start : start + _ENCODE]
        images, labels = _shared.batch_of(train, chosen, model.mean.device)
        logits, features = with_features(model, layer, images)
        parts.append((features.cpu(), logits.cpu(), labels.cpu()))
        progress(0.95 + 0.04 * start / len(places), "features")
    if not parts:
        width, classes = _width(layer), train.classes
        return torch.empty(0, width), torch.empty(0, classes), torch.empty(0, dtype=torch.int64)
    features, logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, logits, labels
