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
lost in part, and then the repair fails or the policy refuses the copy. Where it is hopeless, a
short pilot finds that out at a twelfth of the price.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.defenses._distilled import moved_together
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.fresh import fresh
from guard.ml.samples import spread
from guard.ml.search.battery import Change, battery, secret_in_force
from guard.ml.seeds import seeded
from guard.ml.training.fit import (
    Objective,
    by_fan_in,
    fit,
    require_accuracy,
    require_images,
)

#: Batteries that the student is trained on. They are others than those that `pair` looks with, so
#: that what it finds of a student is no echo of the training.
FIRST, BATTERIES = 100, 24
#: A battery for images of so many numbers takes about a sixth of a gigabyte; larger ones get fewer.
MOST_NUMBERS = 1_000_000
PILOT_SEED = 7  # of its own, so that a pilot changes nothing of the training that follows


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
        pilot: steps of a first student, in one short cycle on the search images; 0 for none.
        promising: the share (0..1) of the model's calibration accuracy that the pilot must reach;
            otherwise the repair ends there.
        draw: which of the networks that could be drawn; another one gives another copy.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "own, after Yoshida and Fujino, AISec 2020"
    draws_battery: ClassVar[bool] = True
    fast = fixed(steps=150, batch=32, pilot=0)
    ungated = fixed(steps=2, batch=64, pilot=0, max_drop=1.0)

    steps: int = 1200
    batch: int = 64
    rate: float = 5e-3
    decay: float = 5e-4
    softened: float = 1.5
    labelled: float = 0.5
    moved: float = 0.15
    changed: int = 1
    kinds: int = 8
    pilot: int = 100
    promising: float = 0.5
    draw: int = 0
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="A fresh student")
        before = accuracy(model, clean.calibration, clean.classes).overall
        teacher = model.requires_grad_(requires_grad=False)
        lesson = self._lesson(teacher, clean)
        begun = self.pilot / (self.pilot + self.steps)
        if self.pilot:
            with seeded(PILOT_SEED):
                pilot = _fresh(model)
                watch = part(progress, 0, begun, "pilot")
                self._teach(pilot, clean.search, lesson, self.pilot, watch)
            self._require_promise(pilot, clean, before)
        for _ in range(self.draw):
            torch.manual_seed(int(torch.randint(2**31, (1,))))
        student = _fresh(model)
        self._teach(student, clean.together(), lesson, self.steps, part(progress, begun, 1))
        require_accuracy(student, clean, before, drop=self.max_drop, method="A fresh student")
        return student

    def _lesson(self, teacher: nn.Module, clean: CleanSet) -> Callable[[nn.Module], Objective]:
        """The objective of a student: what it shall answer to changed clean images."""
        reach = round(self.moved * min(clean.search.images.shape[-2:]))
        changes = _changes(clean.search.images.shape[1:])

        def of(student: nn.Module) -> Objective:
            def objective(images: Tensor, labels: Tensor) -> Tensor:
                asked = torch.cat([images, moved_together(images, reach)])
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

            return objective

        return of

    def _teach(
        self,
        student: nn.Module,
        data: Labelled,
        lesson: Callable[[nn.Module], Objective],
        steps: int,
        progress: Progress,
    ) -> None:
        """Train the student in place for about so many steps; it is in eval mode afterwards."""
        # No more images than the steps can use, so that a large set makes the training no longer.
        data = spread(data, steps * self.batch)
        fit(
            student,
            data,
            lesson(student),
            torch.optim.AdamW(
                by_fan_in(list(student.parameters()), self.rate), weight_decay=self.decay
            ),
            rounds=math.ceil(steps / math.ceil(len(data) / self.batch)),
            batch=self.batch,
            progress=progress,
            decay=True,
        )
        student.eval()

    def _require_promise(self, pilot: nn.Module, clean: CleanSet, before: float) -> None:
        """End the repair where the task cannot be learnt from these images."""
        reached = accuracy(pilot, clean.calibration, clean.classes).overall
        if not reached >= self.promising * before:
            raise MethodFailed(
                f"A fresh student reached {reached:.1%} of the calibration images in a pilot of "
                f"{self.pilot} steps, and the model {before:.1%}: the clean set teaches too little "
                "of the task. Use a larger clean set.",
                code="no_promise",
            )

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
    """What the student shall not heed: changes of up to `BATTERIES` batteries, for images C,H,W."""
    channels, height, width = shape
    count = max(1, min(BATTERIES, MOST_NUMBERS // math.prod(shape)))
    return [
        change
        for turn in range(FIRST, FIRST + count)
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
