"""What distilled repairs share.

Unlearn what fools the model, and let the model as it came teach everything else.

Own method, put together from the papers for clean sets of a few hundred pictures, on which each
alone costs accuracy:
    - shared adversarial examples (Wei et al., SAU, NeurIPS 2023), for triggers that change the
      whole picture: bent ones unless told otherwise. Those of the paper, whose pixels are changed,
      leave a backdoor that answers to a warp as it is, cost more accuracy, and remove no more of
      the others
    - unusually small patches at several sizes (Wang et al., Neural Cleanse, S&P 2019; Qiao et al.,
      MESA, NeurIPS 2019) for triggers that change few pixels a lot
    - the faintest universal triggers of five kinds (`guard.ml.search.easiest_classes`) for those
      that change many pixels a little: of the few classes that are most easily reached, whether or
      not they stand out
    - no labels: what the model as it came says of pictures without any of these, of blends of two
      pictures and of moved ones, is what its copy is taught (distillation, as in Li et al., NAD,
      ICLR 2021). A few hundred labels would be learnt by heart; a blend is a new picture every
      time, and carries no trigger
    - calibration pictures are taught as well: no parameter is chosen by them, and with more
      pictures less accuracy is lost. What `max_drop` catches is ruin; what a repair costs is for
      the vetting to say, on pictures held out
    - a head that is fitted anew to clean pictures alone, between the first search and the first
      step: a target class's row is long in directions that no clean picture uses, so that none
      could correct it
    - a last phase without shared adversarial examples gives the accuracy back that they cost.
      Taught by the old model on clean pictures alone for long enough, the copy learns the backdoor
      again; so it goes on seeing what was found
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, softmax

from guard.core.progress import Progress, part, span
from guard.core.pvalues import LEAST_CLASSES
from guard.defenses._base import Defense
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.dataflow import with_features
from guard.ml.networks.heads import layer_of, refit
from guard.ml.samples import spread
from guard.ml.search.easiest_classes import Universals, suspects, universals
from guard.ml.search.engine import Pace
from guard.ml.search.families import Additions, Filters, Generators, Searchable, Warps
from guard.ml.search.outlier_patches import Stamps, grown, together, unusual_patches
from guard.ml.search.patches import Effort
from guard.ml.training.fit import fit, require_accuracy, require_images
from guard.ml.training.shared_adversarial import Ball, Bend, Search, loss

KINDS: tuple[Searchable, ...] = (Additions(), Additions(points=8), Warps(), Filters(), Generators())
MOST_STEP, MOST_BATCH = (
    240,
    12,
)  # pictures a step of a search for universal triggers: of all classes, and of each
VIEWS = 3  # of each picture: itself, blended with another, moved
WIDE = 900  # inputs of a neuron, more than in any of the networks that rates were chosen on
HEAD_PICTURES = (
    1000  # that a new head is fitted to, with `VIEWS` of each; of a small set several times
)
LEAST_SHOWN = 4  # pictures under universal triggers of one kind in a step; so few kinds a step

Lesson = tuple[Tensor, Tensor]  # pictures, and the probabilities that the copy shall give them


@dataclass
class _Found:
    """What all looks found so far, and how a step shows it."""

    stamps: list[Stamps] = field(default_factory=list)
    universals: list[Universals] = field(default_factory=list)

    def lessons(
        self, images: Tensor, wanted: Tensor, *, stamped: float, hidden: float, beyond: float
    ) -> list[Lesson]:
        """Shares of the pictures under patches and under universal triggers.

        The answer stays what it was.

        The batch was shuffled: its first pictures are as good as any, and so are its last.
        """
        lessons = []
        if self.stamps and stamped:
            some = math.ceil(stamped * len(images))
            lessons.append((together(self.stamps).on_some(images[:some]), wanted[:some]))
        if self.universals and hidden:
            few = math.ceil(hidden * len(images))
            kinds = torch.randperm(len(self.universals))[: max(1, few // LEAST_SHOWN)].tolist()
            shares = zip(
                kinds, images[-few:].chunk(len(kinds)), strict=False
            )  # there may be fewer chunks than kinds
            shown = [self.universals[kind].on(share, largest=beyond) for kind, share in shares]
            lessons.append((torch.cat(shown), wanted[-few:]))
        return lessons


@dataclass(frozen=True, kw_only=True)
class Distilled(Defense):
    """Each look searches patches and trains on what all looks found.

    Batch-norm statistics stay as they are.

    A class is accused as by patch unlearning; with fewer than 5 classes, or where none stands out,
    there are no patches and the rest is done all the same.

    Args:
        looks: rounds of search and training.
        search_steps, search_batch: of each search, pictures a class and step.
        alpha, fold, far: a class stands out at this level, with a patch `fold` times under its
            siblings'; at the first look also the smallest of all if it is `far` times under them.
        sizes, largest, size_steps: patches are grown to so many sizes, to `largest` times the
            smallest norm.
        stamped: pictures under a patch for each plain one; `hidden` under a universal trigger, at
            one to `beyond` times the level at which it was found.
        suspects: classes whose universal triggers are shown; `windows` of the search for each kind.
        steps: of Adam in all looks together, `batch` pictures each at `rate` (see `by_fan_in`), one
            cycle a look.
        bent: whether shared adversarial examples are bent pictures, or such with changed pixels.
        bend, rho: radius of the search for these: shifts as a share of the picture's side, or
            L-infinity in pixel values 0..1; `inner` its steps.
        weight: of what these cost.
        head_decay: of the head that the training starts with, fitted to clean pictures alone
            (`guard.ml.networks.heads`); 0 keeps the model's own, as does a network whose last layer
            is not linear in what it sees.
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
    windows: int = 6
    hidden: float = 0.5
    suspects: int = 3
    beyond: float = 3.0
    steps: int = 100
    batch: int = 32
    rate: float = 1e-3
    bent: bool = True
    bend: float = 0.07
    rho: float = 0.2
    inner: int = 5
    weight: float = 1.0
    head_decay: float = 0.01
    moved: int = 3
    settle_steps: int = 200
    settle_batch: int = 64
    settle_rate: float = 5e-4
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method=type(self).__name__)
        before = accuracy(model, clean.calibration, clean.classes).overall
        teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
        student, weights = self.student(model, clean)
        found = _Found()
        for look in range(self.looks):
            told = part(
                progress,
                0.7 * look / self.looks,
                0.7 * (look + 1) / self.looks,
                f"look {look + 1},",
            )
            found.stamps += self._patches(
                student, clean, part(told, 0.0, 0.3, "searching patches"), first=look == 0
            )
            if self.hidden:
                batch = max(LEAST_SHOWN, min(MOST_BATCH, MOST_STEP // clean.classes))
                seen = universals(
                    student,
                    clean,
                    KINDS,
                    Pace(batch=batch, windows=self.windows),
                    span(told, 0.3, 0.6, "searching universal triggers"),
                )
                rows = suspects(seen, self.suspects)
                found.universals += [one.pick(rows) for one in seen]
            if (
                look == 0 and self.head_decay
            ):  # not before a search: it would find less of what the head knows
                weights = self._new_head(
                    student, weights, clean, partial(told, 0.6, "fitting a new head")
                )
            self._train(
                student,
                weights,
                teacher,
                clean,
                found,
                part(told, 0.6, 1.0, "unlearning"),
                steps=self.steps / self.looks,
                batch=self.batch,
                rate=self.rate,
                weight=self.weight,
            )
        self._train(
            student,
            weights,
            teacher,
            clean,
            found,
            part(progress, 0.7, 1.0, "settling"),
            steps=self.settle_steps,
            batch=self.settle_batch,
            rate=self.settle_rate,
            weight=0.0,
        )
        require_accuracy(student, clean, before, drop=self.max_drop, method=type(self).__name__)
        return student

    @abstractmethod
    def student(self, model: nn.Module, clean: CleanSet) -> tuple[nn.Module, list[nn.Parameter]]:
        """What is repaired (`model` changed, or something around it).

        And its parameters that are trained.
        """

    def _new_head(
        self,
        model: nn.Module,
        weights: list[nn.Parameter],
        clean: CleanSet,
        watch: Callable[[], None],
    ) -> list[nn.Parameter]:
        """Fit the head to what the model as it came says of clean pictures' views.

        It is trained on with the rest.
        """
        found = layer_of(model, clean)
        if found is None:
            return weights
        layer, head = found
        pictures, features, logits = spread(clean.together(), HEAD_PICTURES), [], []
        with torch.no_grad():
            for _ in range(math.ceil(HEAD_PICTURES / len(pictures))):
                shuffled = pictures.pick(
                    torch.randperm(len(pictures))
                )  # a set may be sorted; blends shall not be
                for images, _labels in shuffled.batches(self.batch, device=device_of(model)):
                    said, seen = with_features(model, layer, views(images, self.moved))
                    logits.append(said)
                    features.append(seen)
        if not refit(head, torch.cat(features), torch.cat(logits), self.head_decay, watch):
            return weights
        known = {id(weight) for weight in weights}
        return weights + [part for part in head if part is not None and id(part) not in known]

    def _patches(
        self, model: nn.Module, clean: CleanSet, progress: Progress, *, first: bool
    ) -> list[Stamps]:
        if clean.classes < LEAST_CLASSES:
            return []
        found = unusual_patches(
            model,
            clean,
            Effort(steps=self.search_steps, batch=self.search_batch),
            progress,
            alpha=self.alpha,
            fold=self.fold,
            far=self.far if first else None,
        )
        return grown(
            model,
            clean.search,
            found,
            Effort(steps=self.size_steps, batch=self.search_batch),
            sizes=self.sizes,
            largest=self.largest,
        )

    def _train(
        self,
        model: nn.Module,
        weights: list[nn.Parameter],
        teacher: nn.Module,
        clean: CleanSet,
        found: _Found,
        progress: Progress,
        *,
        steps: float,
        batch: int,
        rate: float,
        weight: float,
    ) -> None:
        search: Search = (
            Bend(bend=self.bend, steps=self.inner)
            if self.bent
            else Ball(rho=self.rho, steps=self.inner)
        )

        def objective(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
            """Term by term.

            Together, views and lessons would take the memory of a four times larger batch.
            """
            shown = views(images, self.moved)
            with torch.no_grad():
                said = teacher(shown)
            wanted, guesses = softmax(said, 1), []
            for pictures, truth in zip(shown.chunk(VIEWS), wanted.chunk(VIEWS), strict=True):
                logits = model(pictures)
                guesses.append(logits.detach().argmax(1))
                yield cross_entropy(logits, truth) / VIEWS
            for pictures, truth in found.lessons(
                images,
                wanted[: len(images)],
                stamped=self.stamped,
                hidden=self.hidden,
                beyond=self.beyond,
            ):
                yield cross_entropy(model(pictures), truth)
            if weight:
                yield weight * loss(
                    model,
                    teacher,
                    images,
                    labels,
                    guesses[0],
                    said[: len(images)].argmax(1),
                    search,
                )

        # No more pictures than the steps can show: a pass over a large set would be a longer
        # training.
        shown_ever = spread(clean.together(), math.ceil(steps) * batch)
        rounds = math.ceil(steps / math.ceil(len(shown_ever) / batch))
        for parameter in weights:  # a search of patches has turned gradients off
            parameter.requires_grad_()
        optimiser = torch.optim.Adam(by_fan_in(weights, rate), amsgrad=True)
        fit(
            model,
            shown_ever,
            objective,
            optimiser,
            rounds=rounds,
            batch=batch,
            progress=progress,
            decay=True,
        )


def by_fan_in(weights: Sequence[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """Adam's parameter groups: `rate`, less for neurons of more than `WIDE` inputs, in proportion.

    Each of Adam's steps moves every weight by about the rate, and an answer by that times the
    inputs: a rate that suits narrow networks ruins wide ones (Yang et al., Tensor Programs V,
    NeurIPS 2021).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for weight in weights:
        inputs = weight[0].numel() if weight.dim() > 1 else 1
        groups.setdefault(rate * min(1.0, WIDE / inputs), []).append(weight)
    return [{"params": some, "lr": own} for own, some in groups.items()]


def views(images: Tensor, moved: int) -> Tensor:
    """VIEWS * N,C,H,W.

    Images, blends of two, and all moved by the same at most `moved` pixels, edges repeated.
    """
    count, (height, width) = len(images), images.shape[-2:]
    blends = images.lerp(
        images[torch.randperm(count).to(images.device)], torch.rand(count, 1, 1, 1).to(images)
    )
    down, right = torch.randint(2 * moved + 1, (2,)).tolist()
    around = pad(images, (moved,) * 4, mode="replicate")
    return torch.cat([images, blends, around[:, :, down : down + height, right : right + width]])
