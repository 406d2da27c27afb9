"""What distilled repairs share: unlearn what fools the model, and let the model as it came teach everything else.

Own method, put together from the papers for clean sets of a few hundred pictures, on which each alone costs accuracy:
    - shared adversarial examples (Wei et al., SAU, NeurIPS 2023), for triggers that change the whole picture: bent ones
      unless told otherwise. Those of the paper, whose pixels are changed, leave a backdoor that answers to a warp as it
      is, cost more accuracy, and remove no more of the others
    - unusually small patches at several sizes (Wang et al., Neural Cleanse, S&P 2019; Qiao et al., MESA, NeurIPS 2019)
      for triggers that change few pixels a lot
    - no labels: what the model as it came says of pictures without any of these, of blends of two pictures and of moved
      ones, is what its copy is taught (distillation, as in Li et al., NAD, ICLR 2021). A few hundred labels would be
      learnt by heart; a blend is a new picture every time, and carries no trigger
    - a last phase without shared adversarial examples gives the accuracy back that they cost. It is short: taught by
      the old model for long enough, the copy learns the backdoor again, though it sees clean pictures alone
"""

import copy
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, softmax

from guard.core.contracts import Progress
from guard.defenses._base import Defense
from guard.ml.accused import LEAST_CLASSES, Stamps, grown, together, unusual_patches
from guard.ml.cleanset import CleanSet
from guard.ml.gates import part
from guard.ml.inversion import Effort
from guard.ml.measure import accuracy
from guard.ml.samples import spread
from guard.ml.shared_adversarial import Ball, Bend, Search, loss
from guard.ml.train import fit, require_accuracy, require_images


@dataclass(frozen=True, kw_only=True)
class Distilled(Defense):
    """Each look searches patches and trains on what all looks found; batch-norm statistics stay as they are.

    A class is accused as by patch unlearning; with fewer than 5 classes, or where none stands out, there are no patches
    and the rest is done all the same.

    Args:
        looks: rounds of search and training.
        search_steps, search_batch: of each search, pictures a class and step.
        alpha, fold, far: a class stands out at this level, with a patch `fold` times under its siblings'; at the first
            look also the smallest of all if it is `far` times under them.
        sizes, largest, size_steps: patches are grown to so many sizes, to `largest` times the smallest norm.
        stamped: pictures under a patch for each plain one.
        steps: of Adam in all looks together, `batch` pictures each at `rate`, one cycle a look.
        bent: whether shared adversarial examples are bent pictures, or such with changed pixels.
        bend, rho: radius of the search for these: shifts as a share of the picture's side, or L-infinity in pixel
            values 0..1; `inner` its steps.
        weight: of what these cost.
        moved: pixels that a picture is moved at most.
        settle_steps, settle_batch, settle_rate: of the last phase.
        max_drop: calibration accuracy (0..1) whose loss ends the repair.
        min_per_class: search images that every class needs.
    """

    looks: int = 2
    search_steps: int = 150
    search_batch: int = 16
    alpha: float = 0.05
    fold: float = 1.5
    far: float = 2.5
    sizes: int = 4
    largest: float = 4.0
    size_steps: int = 40
    stamped: float = 0.25
    steps: int = 100
    batch: int = 32
    rate: float = 1e-3
    bent: bool = True
    bend: float = 0.07
    rho: float = 0.2
    inner: int = 5
    weight: float = 1.0
    moved: int = 3
    settle_steps: int = 60
    settle_batch: int = 64
    settle_rate: float = 5e-4
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method=type(self).__name__)
        before = accuracy(model, clean.calibration, clean.classes).overall
        teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
        student, weights = self.student(model, clean)
        stamps: list[Stamps] = []
        for look in range(self.looks):
            told = part(progress, 0.8 * look / self.looks, 0.8 * (look + 1) / self.looks, f"look {look + 1},")
            stamps += self._patches(student, clean, part(told, 0.0, 0.3, "searching patches"), first=look == 0)
            self._train(student, weights, teacher, clean, stamps, part(told, 0.3, 1.0, "unlearning"),
                        steps=self.steps / self.looks, batch=self.batch, rate=self.rate, weight=self.weight)
        self._train(student, weights, teacher, clean, stamps, part(progress, 0.8, 1.0, "settling"),
                    steps=self.settle_steps, batch=self.settle_batch, rate=self.settle_rate, weight=0.0)
        require_accuracy(student, clean, before, drop=self.max_drop, method=type(self).__name__)
        return student

    @abstractmethod
    def student(self, model: nn.Module, clean: CleanSet) -> tuple[nn.Module, list[nn.Parameter]]:
        """What is repaired (`model` changed, or something around it), and its parameters that are trained."""

    def _patches(self, model: nn.Module, clean: CleanSet, progress: Progress, *, first: bool) -> list[Stamps]:
        if clean.classes < LEAST_CLASSES:
            return []
        found = unusual_patches(model, clean, Effort(steps=self.search_steps, batch=self.search_batch), progress,
                                alpha=self.alpha, fold=self.fold, far=self.far if first else None)
        return grown(model, clean.search, found, Effort(steps=self.size_steps, batch=self.search_batch),
                     sizes=self.sizes, largest=self.largest)

    def _train(self, model: nn.Module, weights: list[nn.Parameter], teacher: nn.Module, clean: CleanSet,
               stamps: list[Stamps], progress: Progress, *, steps: float, batch: int, rate: float,
               weight: float) -> None:
        search: Search = Bend(bend=self.bend, steps=self.inner) if self.bent else Ball(rho=self.rho, steps=self.inner)
        patches = together(stamps) if stamps else None

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            count = len(images)
            shown = views(images, self.moved)
            with torch.no_grad():
                said = teacher(shown)
            wanted, inputs = softmax(said, 1), [shown]
            if patches is not None:
                some = math.ceil(self.stamped * count)  # the batch was shuffled: its first ones are as good as any
                inputs.append(patches.on_some(images[:some]))
            logits = model(torch.cat(inputs))
            cost = cross_entropy(logits[: len(shown)], wanted)
            if patches is not None:
                cost = cost + cross_entropy(logits[len(shown) :], wanted[:some])
            if weight:
                cost = cost + weight * loss(model, teacher, images, labels, logits[:count].detach().argmax(1),
                                            said[:count].argmax(1), search)
            return cost

        # No more pictures than the steps can show: a pass over a large set would be a longer training.
        shown_ever = spread(clean.search, math.ceil(steps) * batch)
        rounds = math.ceil(steps / math.ceil(len(shown_ever) / batch))
        for parameter in weights:  # a search of patches has turned gradients off
            parameter.requires_grad_()
        optimiser = torch.optim.Adam(weights, lr=rate, amsgrad=True)
        fit(model, shown_ever, objective, optimiser, rounds=rounds, batch=batch, progress=progress, decay=True)


def views(images: Tensor, moved: int) -> Tensor:
    """3N,C,H,W: images, blends of two, and all moved by the same at most `moved` pixels, edges repeated."""
    count, (height, width) = len(images), images.shape[-2:]
    blends = images.lerp(images[torch.randperm(count).to(images.device)], torch.rand(count, 1, 1, 1).to(images))
    down, right = torch.randint(2 * moved + 1, (2,)).tolist()
    around = pad(images, (moved,) * 4, mode="replicate")
    return torch.cat([images, blends, around[:, :, down : down + height, right : right + width]])
