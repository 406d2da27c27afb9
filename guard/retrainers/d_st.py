"""D-ST: learn features without trusting labels of suspects, then a classifier against them.

A classifier on features that never saw the labels of three fifths of the set is safe and loses
accuracy. But it knows which of these labels it finds possible, and few images with a wrong label
are among those. So the whole network is trained on at the end, on all that it agrees with and
against the suspects (decision 0042).
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
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
from guard.ml.networks.heads import Head, fit_against
from guard.ml.training.augment import jittered, mirrored, resized_crops, shifted
from guard.ml.training.checkpoints import Checkpoint
from guard.ml.training.contrastive import contrastive_loss, positives
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _features, _shared
from guard.retrainers._base import Retrained, Retrainer
from guard.retrainers._counterexamples import Counterexamples, clean_minus_poisoned
from guard.trainsets import Sifted, TrainingSet

HEADS = ("logistic", "sgd")
EXTRACTED, CLASSIFIED = 0.7, 0.75  # of the progress
_TUNE_DECAY = 5e-4  # as the other retrainers have it
_NAME = "D-ST"


@dataclass(frozen=True, kw_only=True)
class DSt(Retrainer):
    """A semi-supervised contrastive extractor, a classifier, and both on what they agree with.

    Two views of each image are drawn together; only trusted images of one label are drawn together
    as well. The classifier then minimises the cross-entropy of trusted and clean images minus
    `against` times that of the suspects. Where it gives another image's label at least the
    probability that it gives all but `lost` of the calibration images, that label is believed. At
    last everything is trained on trusted, clean and believed images; suspects are counterexamples.

    Deviations from the paper: trusted and suspect images are those of the guard's sift, not of FCT,
    whose separation we could not confirm; the paper ends with the classifier and has no clean set
    (`tune_epochs = 0` ends there), which costs eight points of accuracy on 3,000 images; columns of
    the mask are masked like its rows
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
        tune_epochs: passes at last over all that is believed; 0 stops at the classifier.
        tune_batch: images a step of these.
        lost: the share (0..1) of honest labels that is not believed.
        counter: suspects beside each image of these passes.
        least: trusted images that every class must have.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = (
        "Chen et al., Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples, "
        "NeurIPS 2022"
    )
    fast = MappingProxyType({"epochs": 6, "batch": 64, "tune_epochs": 4, "tune_batch": 32})

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
    tune_epochs: int = 12
    tune_batch: int = 64
    lost: float = 0.05
    counter: float = 0.0625
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
        layer, head = _features.classifier_of(model, clean)
        run = Resumable(checkpoint, progress)
        run.fit(self._extractor(model, layer, train, places, trusted), 0.0, EXTRACTED)
        model.eval()
        suspects = np.setdiff1d(sifted.suspects, sifted.proof)
        if self.head == "sgd":
            run.fit(self._steps(model, head, train, trusted, suspects), EXTRACTED, CLASSIFIED)
        else:
            self._solve(model, layer, head, train, clean, trusted, suspects, progress)
        model.eval()
        others = np.setdiff1d(places, np.concatenate([trusted, suspects]))
        believed = others[:0]
        if self.tune_epochs:
            believed = others[_features.agreeing(model, train, clean, others, self.lost)]
            taught = np.concatenate([trusted, believed])
            run.fit(self._tuning(model, train, clean, taught, suspects), CLASSIFIED, 1.0)
        counts = {"trusted": trusted, "suspects": suspects, "believed": believed}
        return Retrained(model, {name: float(len(found)) for name, found in counts.items()})

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
        width = _features.width(layer)
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
        clean: CleanSet,
        trusted: np.ndarray,
        suspects: np.ndarray,
        progress: Progress,
    ) -> None:
        """Put the classifier with the least loss into the model."""
        device, watch = model.mean.device, partial(progress, CLASSIFIED, "classifier")
        good = chain(
            _features.read(train, self._some(trusted), device),
            clean.search.batches(_features.BATCH, device=device),
        )
        bad = _features.read(train, self._some(suspects), device)
        seen = [_features.encoded(model, layer, part, watch) for part in (good, bad)]
        fitted = fit_against(
            head, seen[0], seen[1], against=self.against, decay=self.head_decay, watch=watch
        )
        if not fitted:
            raise MethodFailed(
                "D-ST finds an operation behind this network's last layer; use head=sgd.",
                code="no_head",
            )

    def _some(self, places: np.ndarray) -> np.ndarray:
        """At most `head_images` of them, the same in a run that goes on."""
        if len(places) <= self.head_images:
            return places
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
        return places[order.numpy()[: self.head_images]]

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

    def _tuning(
        self,
        model: ImageModel,
        train: TrainingSet,
        clean: CleanSet,
        taught: np.ndarray,
        suspects: np.ndarray,
    ) -> Stage:
        """The stage that trains everything on believed labels and against suspects."""
        device, more, reach = model.mean.device, clean.together(), _shared.reach(train)
        model.train().requires_grad_()

        def change(images: Tensor) -> Tensor:
            made = shifted(images, reach)
            return mirrored(made) if self.mirror else made

        accused = Counterexamples(train=train, places=suspects, share=self.counter, change=change)

        def loss(index: np.ndarray) -> Tensor:
            inner, outer = index[index < len(taught)], index[index >= len(taught)] - len(taught)
            images, labels = _shared.batch_of(train, taught[inner], device)
            own = more.pick(torch.from_numpy(outer))
            images = torch.cat([images, own.floats(device)])
            logits, added = accused.beside(model, change(images))
            return cross_entropy(logits, torch.cat([labels, own.labels.to(device)])) + added

        return Stage(
            name="everything",
            modules={"network": model},
            optimiser=_shared.adam(model.parameters(), self.rate, _TUNE_DECAY),
            images=len(taught) + len(more),
            loss=loss,
            epochs=self.tune_epochs,
            batch=self.tune_batch,
        )
