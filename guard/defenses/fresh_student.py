"""Teach a fresh network what the model answers on clean images, and drop the model.

A backdoor is an answer to a trigger, and no clean image shows one. A network whose weights are
drawn anew, and that only ever sees the model's answers to changed clean images, learns the task
with little of the backdoor, whatever the trigger is; nothing has to be found first. That
distillation on clean images loses a backdoor is known (Yoshida and Fujino, "Disabling Backdoor and
Identifying Poison Data by using Knowledge Distillation", AISec 2020). What we found where little
data is to be had (decision 0076):

    - nothing of the model's weights may be kept: with its first two stages kept, the backdoor of a
      patch came back whole
    - the model must not be asked about images that are far from clean ones. Its answers to boxes of
      one image in another, or to images with black edges, taught a student the backdoor of a wave
      or of a warp though no trigger was shown, and those to blends of two images that of a tint. So
      it is asked about clean images and shifted ones alone; what a blend of two shall be answered
      is the blend of both answers
    - half of what a student learns is the true label, which contradicts the backdoor and corrects
      the model
    - what the student shall answer to an image that a random change has altered (the families of
      `guard.ml.search.battery`, drawn from the installation's secret) is what it learns about the
      image without the change. It learns that changes of this kind mean nothing, and backdoors
      that are near what clean images show (a tone, a wave, features of the target class) stay
      behind as well

What it costs depends on how far the clean images reach: a task that cannot be learnt from them is
lost in part, and then the repair fails or the policy refuses the copy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.defenses._distilled import shifted
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.fresh import fresh
from guard.ml.samples import spread
from guard.ml.search.battery import Change, battery, secret_in_force
from guard.ml.training.fit import by_fan_in, fit, require_accuracy, require_images

#: Batteries that the student is trained on. They are others than those that `pair` looks with, so
#: that what it finds of a student is no echo of the training.
FIRST, BATTERIES = 100, 24


@dataclass(frozen=True, kw_only=True)
class FreshStudent(Defense):
    """A network of the same architecture with fresh weights, trained on the model's answers.

    Calibration images are used for training as well: no parameter is chosen on them, and with more
    images less accuracy is lost. `max_drop` only prevents ruin; the vetting measures the cost of a
    repair on images held out.

    Args:
        steps: of AdamW, `batch` clean images each, at `rate` (see `by_fan_in`) in one cycle.
        decay: weight decay.
        softened: the temperature of the model's answers.
        labelled: the share (0..1) of the true label in all that is learnt.
        moved: the largest shift of an image, as a share of its shorter side.
        changed: altered copies of each image; `kinds` changes are drawn for each step.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "own, after Yoshida and Fujino, AISec 2020"
    fast = fixed(steps=150, batch=32)
    ungated = fixed(steps=2, batch=64, max_drop=1.0)

    steps: int = 1200
    batch: int = 64
    rate: float = 5e-3
    decay: float = 5e-4
    softened: float = 1.5
    labelled: float = 0.5
    moved: float = 0.15
    changed: int = 1
    kinds: int = 8
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="A fresh student")
        before = accuracy(model, clean.calibration, clean.classes).overall
        student = _fresh(model)
        teacher = model.requires_grad_(requires_grad=False)
        reach = round(self.moved * min(clean.search.images.shape[-2:]))
        changes = _changes(clean.search.images.shape[1:])

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            asked = torch.cat([images, shifted(images, reach)])
            with torch.no_grad():
                wanted = softmax(teacher(asked) / self.softened, 1)
            truth = one_hot(labels, wanted.shape[1]).to(wanted)
            wanted = wanted.lerp(truth.repeat(2, 1), self.labelled)
            own = wanted[: len(images)]
            blends, between = _blends(images, own)
            altered = [self._altered(images, changes) for _ in range(self.changed)]
            shown = torch.cat([asked, blends, *altered])
            return cross_entropy(
                student(shown), torch.cat([wanted, between, own.repeat(self.changed, 1)])
            )

        # No more images than the steps can use, so that a large set makes the training no longer.
        data = spread(clean.together(), self.steps * self.batch)
        fit(
            student,
            data,
            objective,
            torch.optim.AdamW(
                by_fan_in(list(student.parameters()), self.rate), weight_decay=self.decay
            ),
            rounds=math.ceil(self.steps / math.ceil(len(data) / self.batch)),
            batch=self.batch,
            progress=progress,
            decay=True,
        )
        student.eval()
        require_accuracy(student, clean, before, drop=self.max_drop, method="A fresh student")
        return student

    def _altered(self, images: Tensor, changes: Sequence[Change]) -> Tensor:
        """The images, float N,C,H,W in [0, 1], each altered by one of `kinds` random changes."""
        drawn = torch.randint(len(changes), (self.kinds,)).tolist()
        # A batch was shuffled, so that each change meets a random share of it.
        parts = zip(drawn, images.chunk(self.kinds), strict=False)
        return torch.cat([changes[place](part) for place, part in parts])


def _blends(images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Each image, float N,C,H,W, blended with another, and their probabilities N,K likewise."""
    other = torch.randperm(len(images)).to(images.device)
    share = torch.rand(len(images), 1).to(images)
    blends = images.lerp(images[other], share[:, :, None, None])
    return blends, wanted.lerp(wanted[other], share.to(wanted))


def _changes(shape: Sequence[int]) -> list[Change]:
    """What the student shall not heed: all changes of `BATTERIES` batteries, for images C,H,W."""
    channels, height, width = shape
    return [
        change
        for turn in range(FIRST, FIRST + BATTERIES)
        for family in battery(secret_in_force(), (channels, height, width), turn).values()
        for change in family
    ]


def _fresh(model: nn.Module) -> ImageModel:
    """A network of the model's architecture in training mode, drawn from the global generator.

    Layers that a repair of the guard's own put in are left out.
    """
    if not isinstance(model, ImageModel):
        raise MethodFailed(
            "A fresh student needs a network that was built from a manifest, to build another.",
            code="no_manifest",
        )
    return fresh(model.manifest, device_of(model))
