"""D-BR: unlearn accused training images by gradient ascent and relearn trusted ones, in turns.

Paper: Chen, Wu, Wang, "Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples",
NeurIPS 2022, section 4.3: an epoch of ascent on the cross-entropy of the suspects and an epoch of
descent on trusted images, 20 rounds, one SGD for both (1e-4, momentum 0.9, decay 5e-4, batch 128),
batch norm in train mode. `published` runs that, without the augmentation, which is the data set's.

It is not the default since it has no bound: the loss of an image that is unlearnt already keeps
growing, so that a few clean images among the suspects ruin the model (independent runs of it end
near chance), while a rate that is too small for the model changes nothing. Deviations:

* each suspect's loss is max(0, log K - CE): its ascent ends at chance;
* both losses are in each step, so that the ascent never goes where clean images do not follow; a
  whole pass of it moved models so far that relearning never brought their accuracy back;
* what is relearned is, beside the labels, the logits of the upload, by a Huber loss: trusted images
  are the easy ones of their class, and labels of these alone cost the hard ones. A divergence of
  probabilities does the same, but its gradient has no bound, and such runs left the finite;
* batch norm is in eval mode, so that triggered images never set its statistics; in train mode the
  relearning replaced them in each round, which undid the ascent on a blended trigger;
* clean search images are relearned beside the trusted training images;
* what is kept is chosen on the clean calibration part alone, never by the success on a trigger.

What was tried, and the development models that it was chosen on, are in docs/decisions/0042: no
number measured on those is evidence.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from guard.core.progress import Progress
from guard.defenses._base import fixed
from guard.defenses._informed import Accused, InformedDefense, require_suspects
from guard.ml.cleanset import CleanSet, Labelled, joined
from guard.ml.measure import device_of
from guard.ml.training.fit import Kept, Objective, fit, require_images

PUBLISHED_ROUNDS, PUBLISHED_BATCH = 20, 128


@dataclass(frozen=True, kw_only=True)
class DBr(InformedDefense):
    """Bounded ascent on the suspects and descent on trusted and clean images, in each step.

    Args:
        rounds: passes over the trusted and clean images. A suspect at chance has no gradient any
            more, so that further ones only relearn.
        batch: trusted and clean images a step.
        suspects: suspects a step, drawn at random.
        ascent: the weight of the suspects' loss.
        keep: the weight of the distance to the upload's logits.
        rate, momentum, weight_decay: of SGD, one cycle of the rate.
        max_drop: calibration accuracy (0..1) that a kept pass may lose, as much as the packaged
            policies allow; one image always may be.
        min_suspects: fewer accused images than this are nothing to unlearn.
        min_per_class: search images that every class needs.
        published: run the paper's rounds, rates and batches instead, on the trusted images alone,
            and keep the last round.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "Chen et al., Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples, "
        "NeurIPS 2022"
    )
    fast = fixed(rounds=3)
    ungated = fixed(rounds=1, max_drop=1.0)

    rounds: int = 10
    batch: int = 64
    suspects: int = 32
    ascent: float = 1.0
    keep: float = 1.0
    rate: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-4
    max_drop: float = 0.02
    min_suspects: int = 5
    min_per_class: int = 2
    published: bool = False

    def repair_informed(
        self, model: nn.Module, clean: CleanSet, accused: Accused, *, progress: Progress
    ) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="D-BR")
        require_suspects(len(accused.suspects), at_least=self.min_suspects, method="D-BR")
        if self.published:
            return _as_published(model, accused, progress)
        chance = math.log(clean.classes)
        upload = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        own, device = accused.suspects, device_of(model)

        def objective(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
            logits = model(images)
            same = smooth_l1_loss(logits, upload(images))
            yield cross_entropy(logits, labels) + self.keep * same
            drawn = own.pick(torch.randint(len(own), (self.suspects,)))
            wrong = drawn.labels.to(device)
            each = cross_entropy(model(drawn.floats(device)), wrong, reduction="none")
            yield self.ascent * (chance - each).clamp(min=0).mean()

        def look(_finished: int) -> bool:
            kept.look()
            return False

        model.eval()
        kept = Kept(model, clean, drop=self.max_drop, method="D-BR")
        fit(
            model,
            joined(accused.trusted, clean.search),
            objective,
            torch.optim.SGD(
                model.parameters(),
                lr=self.rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            ),
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="D-BR,",
            decay=True,
            after_round=look,
        )
        kept.restore()
        return model


def _as_published(model: nn.Module, accused: Accused, progress: Progress) -> nn.Module:
    """The paper's loop; on trusted images only, since the paper has no clean set."""
    require_suspects(len(accused.trusted), at_least=1, method="D-BR as published", kind="trusted")
    both = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def relearn(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(model(images), labels)

    def unlearn(images: Tensor, labels: Tensor) -> Tensor:
        return -relearn(images, labels)

    model.train()
    for turn in range(PUBLISHED_ROUNDS):
        done = turn / PUBLISHED_ROUNDS
        _pass(model, accused.suspects, unlearn, both, PUBLISHED_BATCH, progress, done)
        _pass(model, accused.trusted, relearn, both, PUBLISHED_BATCH, progress, done)
    return model


def _pass(
    model: nn.Module,
    data: Labelled,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    batch: int,
    progress: Progress,
    at: float,
) -> None:
    """One pass over `data`, during which `progress` stands at `at` (0..1)."""

    def stand(done: float, note: str = "") -> None:
        del done
        progress(at, f"D-BR, {note}")

    fit(model, data, objective, optimiser, rounds=1, batch=batch, progress=stand)
