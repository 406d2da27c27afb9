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
      or of a warp though no trigger was shown; its answers to blends of two images and to shifted
      ones hardly do, and without blends the student loses a point of accuracy more
    - half of what a student learns about an image and its shifted copy is the true label, which
      contradicts the backdoor and corrects the model

What it costs depends on how far the clean images reach: a task that cannot be learnt from them is
lost in part, and then the repair fails or the policy refuses the copy.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.defenses._distilled import views
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.fresh import fresh
from guard.ml.samples import spread
from guard.ml.training.fit import by_fan_in, fit, require_accuracy, require_images


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
        labelled: the share (0..1) of the true label in what is learnt about an image and its
            shifted copy.
        moved: the largest shift of an image, as a share of its shorter side.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "own, after Yoshida and Fujino, AISec 2020"
    fast = fixed(steps=150, batch=32)
    ungated = fixed(steps=2, batch=64, max_drop=1.0)

    steps: int = 800
    batch: int = 64
    rate: float = 3e-3
    decay: float = 5e-4
    softened: float = 1.5
    labelled: float = 0.5
    moved: float = 0.15
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="A fresh student")
        before = accuracy(model, clean.calibration, clean.classes).overall
        student = _fresh(model)
        teacher = model.requires_grad_(requires_grad=False)
        reach = round(self.moved * min(clean.search.images.shape[-2:]))

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            shown, count = views(images, reach), len(images)
            with torch.no_grad():
                wanted = softmax(teacher(shown) / self.softened, 1)
                truth = one_hot(labels, wanted.shape[1]).to(wanted)
                for alike in (wanted[:count], wanted[-count:]):  # not the blends of two
                    alike.lerp_(truth, self.labelled)
            return cross_entropy(student(shown), wanted)

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
