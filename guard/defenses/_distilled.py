"""Distilled repairs: unlearn what fools the model, and distil the original model otherwise.

This is our own method, combined from the papers for clean sets of a few hundred images, on which
each alone costs accuracy:
    - shared adversarial examples (Wei et al., SAU, NeurIPS 2023), for triggers that change the
      whole image: warped ones by default. The paper's, whose pixels are changed, do not remove a
      backdoor with a warp as trigger, cost more accuracy, and remove no more of the others
    - unusually small patches at several sizes (Wang et al., Neural Cleanse, S&P 2019; Qiao et al.,
      MESA, NeurIPS 2019), for triggers that change few pixels a lot
    - minimal universal perturbations of five kinds (`guard.ml.search.easiest_classes`), for
      triggers that change many pixels a little, of the few classes that are most easily reached,
      whether or not they stand out
    - no labels: the copy is trained on the outputs of the original model for images without any of
      these, for blends of two images and for shifted ones (distillation, as in Li et al., NAD, ICLR
      2021). A few hundred labels would be memorised; a blend is a new image every time, and carries
      no trigger
    - calibration images are used for training as well: no parameter is chosen on them, and with
      more images less accuracy is lost. `max_drop` only prevents ruin; the vetting measures the
      cost of a repair on images held out
    - a head that is refitted to clean images alone, between the first search and the first training
      step: a target class's row is long in directions that no clean image uses, so that training on
      clean images cannot correct it
    - a last phase without shared adversarial examples, which recovers the accuracy that they cost.
      Trained on clean images alone with the original model as teacher, the copy would learn the
      backdoor again after a while; so the triggers that were found stay in the training
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, softmax

from guard.core.progress import Progress, part, span
from guard.core.pvalues import LEAST_CLASSES
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.dataflow import with_features
from guard.ml.networks.heads import layer_of, refit
from guard.ml.samples import spread
from guard.ml.search.easiest_classes import UniversalTriggers, suspects, universal_triggers
from guard.ml.search.engine import Pace
from guard.ml.search.families import Additions, Filters, Generators, Searchable, Warps
from guard.ml.search.outlier_patches import PatchStamps, grown, together, unusual_patches
from guard.ml.search.patches import PatchEffort
from guard.ml.training.fit import by_fan_in, fit, require_accuracy, require_images
from guard.ml.training.shared_adversarial import AdversarialSearch, Ball, Bend, loss

KINDS: tuple[Searchable, ...] = (Additions(), Additions(points=8), Warps(), Filters(), Generators())
MOST_STEP, MOST_BATCH = (
    240,
    12,
)  # images a step of a search for universal perturbations: of all classes, and of each
VIEWS = 3  # of each image: itself, blended with another, shifted
HEAD_IMAGES = 1000  # to fit a new head to, with `VIEWS` of each; images of a small set repeat
LEAST_SHOWN = 4  # images with universal perturbations of one kind in a step; limits the kinds

Lesson = tuple[Tensor, Tensor]  # images, and the probabilities that the copy is trained to output


@dataclass
class _Found:
    """The triggers that all looks have found so far, and the training batches with them."""

    stamps: list[PatchStamps] = field(default_factory=list)
    universals: list[UniversalTriggers] = field(default_factory=list)

    def lessons(
        self, images: Tensor, wanted: Tensor, *, stamped: float, hidden: float, beyond: float
    ) -> list[Lesson]:
        """Copies of some images with patches and with universal perturbations, with their outputs.

        The batch was shuffled, so its first or last images are a random choice.

        Args:
            images: float N,C,H,W in [0, 1].
            wanted: the outputs for the clean images, which stay the same, float N,K.
            stamped, hidden: shares (0..1) of the images with patches and with perturbations.
            beyond: the largest factor of a perturbation's level.
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
    """Each look searches for triggers and trains on those that all looks found.

    Batch-norm statistics stay as they are. Classes stand out as in patch unlearning; with fewer
    than 5 classes, or if none stands out, there are no patches, and the rest is done all the same.

    Args:
        looks: rounds of search and training.
        search_steps, search_batch: steps of each search, and images a class and step.
        alpha, fold, far: a class stands out at level `alpha` with a patch `fold` times smaller than
            its siblings'; at the first look also the class with the smallest patch if it is `far`
            times smaller.
        sizes, largest, size_steps: each patch is searched again at `sizes` sizes, up to `largest`
            times its norm, in `size_steps` steps each.
        stamped: images with a patch for each clean one; `hidden` those with a universal
            perturbation, at one to `beyond` times the level at which it was found.
        suspects: classes whose universal perturbations are used; `windows` of the search for each
            kind.
        steps: steps of Adam in all looks together, `batch` images each at `rate` (see `by_fan_in`),
            one cycle a look.
        bent: whether shared adversarial examples are warped images, or images with changed pixels.
        bend, rho: radius of the search for these: shifts as a share of the image's side, or
            L-infinity in pixel values 0..1; `inner` its steps.
        weight: weight of their loss.
        head_decay: weight decay of the head that the training starts with, refitted to clean images
            alone (`guard.ml.networks.heads`); 0 keeps the model's own head, as does a network whose
            logits are not linear in the head's input.
        moved: the largest shift of an image, in pixels.
        settle_steps, settle_batch, settle_rate: those of the last phase.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    fast = fixed(looks=1, search_steps=20, size_steps=5, steps=4, settle_steps=4)
    ungated = fixed(
        looks=1,
        search_steps=20,
        search_batch=6,
        sizes=2,
        size_steps=2,
        windows=1,
        steps=2,
        batch=64,
        settle_steps=1,
        fold=1e9,
        far=0.0,
        max_drop=1.0,
    )

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
            report = part(
                progress,
                0.7 * look / self.looks,
                0.7 * (look + 1) / self.looks,
                f"look {look + 1},",
            )
            found.stamps += self._patches(
                student, clean, part(report, 0.0, 0.3, "searching patches"), first=look == 0
            )
            if self.hidden:
                batch = max(LEAST_SHOWN, min(MOST_BATCH, MOST_STEP // clean.classes))
                seen = universal_triggers(
                    student,
                    clean,
                    KINDS,
                    Pace(batch=batch, windows=self.windows),
                    span(report, 0.3, 0.6, "searching universal perturbations"),
                )
                rows = suspects(seen, self.suspects)
                found.universals += [one.pick(rows) for one in seen]
            if (
                look == 0 and self.head_decay
            ):  # after the first search, which a new head would make less effective
                weights = self._new_head(
                    student, weights, clean, partial(report, 0.6, "fitting a new head")
                )
            self._train(
                student,
                weights,
                teacher,
                clean,
                found,
                part(report, 0.6, 1.0, "unlearning"),
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
        """The model that is trained (`model` itself or a wrapper), and its trained parameters."""

    def _new_head(
        self,
        model: nn.Module,
        weights: list[nn.Parameter],
        clean: CleanSet,
        watch: Callable[[], None],
    ) -> list[nn.Parameter]:
        """Refit the head to the model's outputs for views of clean images.

        Returns:
            The parameters to train, with the head's.
        """
        found = layer_of(model, clean)
        if found is None:
            return weights
        layer, head = found
        chosen, features, logits = spread(clean.together(), HEAD_IMAGES), [], []
        with torch.no_grad():
            for _ in range(math.ceil(HEAD_IMAGES / len(chosen))):
                shuffled = chosen.pick(
                    torch.randperm(len(chosen))
                )  # a set may be sorted, but blends should be of any two classes
                for images, _labels in shuffled.batches(self.batch, device=device_of(model)):
                    given, seen = with_features(model, layer, views(images, self.moved))
                    logits.append(given)
                    features.append(seen)
        if not refit(head, torch.cat(features), torch.cat(logits), self.head_decay, watch):
            return weights
        known = {id(weight) for weight in weights}
        return weights + [part for part in head if part is not None and id(part) not in known]

    def _patches(
        self, model: nn.Module, clean: CleanSet, progress: Progress, *, first: bool
    ) -> list[PatchStamps]:
        if clean.classes < LEAST_CLASSES:
            return []
        found = unusual_patches(
            model,
            clean,
            PatchEffort(steps=self.search_steps, batch=self.search_batch),
            progress,
            alpha=self.alpha,
            fold=self.fold,
            far=self.far if first else None,
        )
        return grown(
            model,
            clean.search,
            found,
            PatchEffort(steps=self.size_steps, batch=self.search_batch),
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
        search: AdversarialSearch = (
            Bend(bend=self.bend, steps=self.inner)
            if self.bent
            else Ball(rho=self.rho, steps=self.inner)
        )

        def objective(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
            """The terms of the loss one by one; together they would need four times the memory."""
            shown = views(images, self.moved)
            with torch.no_grad():
                original = teacher(shown)
            wanted, guesses = softmax(original, 1), []
            for inputs, truth in zip(shown.chunk(VIEWS), wanted.chunk(VIEWS), strict=True):
                logits = model(inputs)
                guesses.append(logits.detach().argmax(1))
                yield cross_entropy(logits, truth) / VIEWS
            for inputs, truth in found.lessons(
                images,
                wanted[: len(images)],
                stamped=self.stamped,
                hidden=self.hidden,
                beyond=self.beyond,
            ):
                yield cross_entropy(model(inputs), truth)
            if weight:
                yield weight * loss(
                    model,
                    teacher,
                    images,
                    labels,
                    guesses[0],
                    original[: len(images)].argmax(1),
                    search,
                )

        # No more images than the steps can use: a pass over a large set would make the training
        # longer.
        shown_ever = spread(clean.together(), math.ceil(steps) * batch)
        rounds = math.ceil(steps / math.ceil(len(shown_ever) / batch))
        for parameter in weights:  # the search for patches has turned gradients off
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


def views(images: Tensor, moved: int) -> Tensor:
    """The images, blends of two, and shifted copies: float VIEWS * N,C,H,W in [0, 1].

    Draws from torch's global CPU generator; `moved_together` gives the range.
    """
    count = len(images)
    blends = images.lerp(
        images[torch.randperm(count).to(images.device)], torch.rand(count, 1, 1, 1).to(images)
    )
    return torch.cat([images, blends, moved_together(images, moved)])


def moved_together(images: Tensor, moved: int) -> Tensor:
    """The float images N,C,H,W, all shifted by the same amount, with edges repeated.

    It is at most `moved` pixels, drawn from torch's global CPU generator.
    """
    height, width = images.shape[-2:]
    down, right = torch.randint(2 * moved + 1, (2,)).tolist()
    around = pad(images, (moved,) * 4, mode="replicate")
    return around[:, :, down : down + height, right : right + width]
