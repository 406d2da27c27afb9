"""Trap and Replace: let the backdoor settle in the head, and put a new head in its place."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.core.progress import Progress
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, evaluating
from guard.ml.networks import fresh as fresh_network
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.heads import layer_of
from guard.ml.networks.split import Decoder, Split, psnr, split, total_variation
from guard.ml.suitability import channels_last
from guard.ml.training.augment import cutmix, mirrored, shifted
from guard.ml.training.checkpoints import Checkpoint
from guard.ml.training.fit import require_images
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _shared
from guard.retrainers._base import Retrained, Retrainer
from guard.retrainers._counterexamples import Counterexamples
from guard.trainsets import Sifted, TrainingSet

FAILED_MSE = 0.02  # of the reconstruction: with more the bait did not hold, by our reading
_PROBES, _MEASURED = 4, 256
_NAME = "Trap and Replace"


@dataclass(frozen=True, kw_only=True)
class TrapAndReplace(Retrainer):
    """Train with a decoder on the stem as bait, freeze the stem, train a new head on clean images.

    The bait stage sees the whole training set but for the proof part, suspects and all: it is
    meant to be poisoned. Its loss is CE + 10 MSE + TV of the reconstruction of the image as the
    network gets it, before normalisation. The replace stage sees the clean set's search part, and
    suspects as images that are not what their labels name; what is reported is measured on the
    calibration part.

    The same is always done without a decoder, from the same weights: this control shows whether the
    trap does anything that an early cut and a new head do not do alone. In our measurements it did
    not, and its network was less accurate (docs/decisions/0042). Both accuracies are reported, and
    the control's network is returned beside the result.

    Deviations from the paper: the paper has no suspects (`counter = 0`), and its new head often
    obeys the trigger again, since clean images say nothing of it; any network is cut where a
    feature map of at least 4x4 is followed by at least two layers and a tenth of the weights; the
    weight of the reconstruction follows log(classes), as the cross-entropy of an untrained network
    does; AdamW at a rate of 0.003 also in the replace stage, where Adam at 0.03 is brittle; no
    CutMix there, which costs a few hundred clean images more accuracy than anything else; mirroring
    is off, since it changes the class of digits and signs; dropout of 0.2 for 0.5, as the
    classifiers here may have 32 inputs, and it is really active, which the published code's is not
    before the classifier.

    Args:
        epochs: passes of the bait stage; the paper has 200 on CIFAR-10.
        replace_epochs: passes of the replace stage, as in the paper.
        batch: images a step.
        rate: AdamW's, at its highest, less for wide layers.
        weight_decay: AdamW's.
        reconstruction: the weight of the mean squared error for ten classes.
        variation: the weight of the reconstruction's total variation.
        mix: the share (0..1) of the replace stage's batches that CutMix changes; the paper has 1.
        smoothing: of the labels in the replace stage.
        dropout: the share of the classifier's inputs that a step of the replace stage leaves out.
        cut: the module before which the network is cut; by default the last that qualifies.
        mirror: mirror half of the images left to right.
        counter: suspects beside each image of the replace stage; 0 is the paper's.
        least: clean search images that every class must have.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = (
        "Wang et al., Trap and Replace: Defending Backdoor Attacks by Trapping Them into an "
        "Easy-to-Replace Subnetwork, NeurIPS 2022"
    )
    fast = MappingProxyType({"epochs": 6, "replace_epochs": 20, "batch": 32})

    epochs: int = 20
    replace_epochs: int = 100
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 5e-4
    reconstruction: float = 10.0
    variation: float = 1.0
    mix: float = 0.0
    smoothing: float = 0.1
    dropout: float = 0.2
    cut: str = ""
    mirror: bool = False
    counter: float = 0.125
    least: int = 5

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
        require_images(clean, per_class=self.least, method=_NAME)
        places = _shared.left(train, sifted.proof)
        _shared.require_classes(
            train.labels[places], train.classes, least=1, what="training images", method=_NAME
        )
        model = fresh_network.fresh(manifest, device)
        probe = clean.search.pick(torch.arange(_PROBES)).floats(device)
        where = split(model, probe, self.cut, method=_NAME)
        control = copy.deepcopy(model)
        decoder = Decoder(where.channels, where.grid, manifest.input_size).to(device)
        channels_last(decoder)

        suspects = np.setdiff1d(sifted.suspects, sifted.proof)
        run = Resumable(checkpoint, progress)
        run.fit(self._bait("bait", model, decoder, where, train, places), 0.0, 0.45)
        error = reconstruction_error(model, decoder, where, clean)
        run.fit(self._bait("control bait", control, None, where, train, places), 0.45, 0.8)
        for network, name, start in ((model, "head", 0.8), (control, "control head", 0.9)):
            where.renew(network, fresh_network.fresh(manifest, device))
            with _thinned(network, clean, self.dropout):
                stage = self._replace(name, network, where, clean, train, suspects)
                run.fit(stage, start, start + 0.1)
            network.eval()
        numbers = {
            "psnr": psnr(error),
            "mse": error,
            "bait_held": float(error <= FAILED_MSE),
            "accuracy": accuracy(model, clean.calibration, clean.classes).overall,
            "control_accuracy": accuracy(control, clean.calibration, clean.classes).overall,
            "head_share": where.share(model),
        }
        return Retrained(model, numbers, control)

    def _augmented(self, images: Tensor, reach: int) -> Tensor:
        made = shifted(images, reach)
        return mirrored(made) if self.mirror else made

    def _bait(
        self,
        name: str,
        model: ImageModel,
        decoder: Decoder | None,
        where: Split,
        train: TrainingSet,
        places: np.ndarray,
    ) -> Stage:
        """The stage that trains everything on the poisoned set, with a decoder or without."""
        device, reach = model.mean.device, _shared.reach(train)
        modules: dict[str, nn.Module] = {"network": model.train()}
        if decoder is not None:
            modules["decoder"] = decoder.train()

        def loss(index: np.ndarray) -> Tensor:
            images, labels = _shared.batch_of(train, places[index], device)
            images = self._augmented(images, reach)
            with where.features(model) as seen:
                value = cross_entropy(model(images), labels)
            if decoder is None:
                return value
            return value + self.bait(decoder(where.maps(seen[0])), images, train.classes)

        return Stage(
            name=name,
            modules=modules,
            optimiser=_shared.adam(
                [weight for module in modules.values() for weight in module.parameters()],
                self.rate,
                self.weight_decay,
            ),
            images=len(places),
            loss=loss,
            epochs=self.epochs,
            batch=self.batch,
        )

    def bait(self, made: Tensor, images: Tensor, classes: int) -> Tensor:
        """The reconstruction's part of the loss, a scalar; both float N,C,H,W in [0, 1]."""
        weight = self.reconstruction * math.log(classes) / math.log(10)
        error = (made - images).square().mean()
        return weight * error + self.variation * total_variation(made)

    def _replace(
        self,
        name: str,
        model: ImageModel,
        where: Split,
        clean: CleanSet,
        train: TrainingSet,
        suspects: np.ndarray,
    ) -> Stage:
        """The stage that trains the head alone, on clean images and against suspects."""
        device, reach = model.mean.device, _shared.reach(train)
        head = where.freeze(model)
        accused = Counterexamples(
            train=train,
            places=suspects,
            share=self.counter,
            change=lambda images: self._augmented(images, reach),
        )

        def loss(index: np.ndarray) -> Tensor:
            part = clean.search.pick(torch.from_numpy(index))
            images, labels = part.floats(device), part.labels.to(device)
            images = self._augmented(images, reach)
            if float(torch.rand(1)) >= self.mix:
                logits, added = accused.beside(model, images)
                return cross_entropy(logits, labels, label_smoothing=self.smoothing) + added
            mixed, partner, own = cutmix(images)
            logits, added = accused.beside(model, mixed)
            others = labels[partner.to(device)]
            return (
                own * cross_entropy(logits, labels, label_smoothing=self.smoothing)
                + (1 - own) * cross_entropy(logits, others, label_smoothing=self.smoothing)
                + added
            )

        return Stage(
            name=name,
            modules={"network": model},
            optimiser=_shared.adam(head, self.rate, self.weight_decay),
            images=len(clean.search),
            loss=loss,
            epochs=self.replace_epochs,
            batch=self.batch,
        )


@torch.no_grad()
def reconstruction_error(
    model: ImageModel, decoder: Decoder, where: Split, clean: CleanSet
) -> float:
    """The mean squared error of the reconstructed calibration images, which are in [0, 1]."""
    total = 0.0
    with evaluating(model), evaluating(decoder), where.features(model) as seen:
        for images, _ in clean.calibration.batches(_MEASURED, device=model.mean.device):
            model(images)
            made = decoder(where.maps(seen[0]))
            total += float((made - images).square().double().sum())
    return total / clean.calibration.images.numel()


@contextmanager
def _thinned(model: ImageModel, clean: CleanSet, share: float) -> Iterator[None]:
    """Inside the block, the classifier loses a share of its inputs while it is in training mode."""
    with evaluating(model):
        found = layer_of(model, clean)
    name = "" if found is None else found[0].weight_name.rpartition(".")[0]
    if not name:
        raise MethodFailed(
            f"{_NAME} finds no last linear layer with one output a class; this architecture has no "
            "classifier that it could replace.",
            code="no_head",
        )

    def thin(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (dropout(args[0], share, training=module.training), *args[1:])

    handle = model.get_submodule(name).register_forward_pre_hook(thin)
    try:
        yield
    finally:
        handle.remove()
