"""D-BR: unlearn accused training images by gradient ascent and relearn trusted ones, in turns.

Paper: Chen, Wu, Wang, "Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples",
NeurIPS 2022, section 4.3: an epoch of ascent on the cross-entropy of the suspects and an epoch of
descent on trusted images, 20 rounds, one SGD for both (1e-4, momentum 0.9, decay 5e-4, batch 128),
batch norm in train mode. `published` runs that, without the augmentation, which is the data set's.

It is not the default since it has no bound: the loss of an image that is unlearnt already keeps
growing, so that a few clean images among the suspects ruin the model (independent runs of it end
near chance), while a rate that is too small for the model changes nothing. Deviations:

* each suspect's loss is max(0, log K - CE): its ascent ends at chance;
* batch norm is in eval mode, so that triggered images never set its statistics; in train mode the
  relearning replaced them in each round, which undid the ascent on a blended trigger;
* two optimisers, so that the momentum of the ascent does not leak into the relearning; the ascent
  has Adam's, since a trigger that is learnt perfectly leaves hardly any gradient;
* clean search images are relearned beside the trusted training images;
* what is kept is chosen on the clean calibration part alone, never by the success on a trigger.

The default rates and batch norm's mode were chosen on two development models whose triggers were
known (docs/decisions/0036): no number measured on those is evidence.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.progress import Progress
from guard.defenses._base import fixed
from guard.defenses._informed import Accused, InformedDefense, require_suspects
from guard.ml.cleanset import CleanSet, Labelled, joined
from guard.ml.training.fit import Kept, Objective, by_fan_in, fit, require_images

PUBLISHED_ROUNDS, PUBLISHED_BATCH = 20, 128


@dataclass(frozen=True, kw_only=True)
class DBr(InformedDefense):
    """Alternate bounded ascent on the suspects with descent on trusted and clean images.

    Args:
        rounds: of both. A suspect at chance has no gradient any more, so that further rounds only
            relearn; ten were enough wherever the ascent moved the model at all.
        batch: images a step.
        ascent: Adam's rate on the suspects, a tenth of the usual 3e-3 for training: three times as
            much ruined a network with a blended trigger, whose statistics cannot adapt.
        steps: of ascent a round at least; few suspects are passed over more often. More steps than
            needed do no harm, since they end at chance.
        rate, momentum, weight_decay: of SGD on trusted and clean images; the rate falls to zero.
        max_drop: calibration accuracy (0..1) that a kept round may lose, as much as the packaged
            policies allow; one image always may be.
        min_suspects: fewer accused images than this are nothing to unlearn.
        min_per_class: search images that every class needs.
        published: run the paper's rounds, rates and batches instead, on the trusted images alone,
            and keep the last round.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Chen et al., Effective Backdoor Defense by Exploiting Sensitivity of Poisoned Samples, "
        "NeurIPS 2022"
    )
    fast = fixed(rounds=3)
    ungated = fixed(rounds=1, max_drop=1.0)

    rounds: int = 10
    batch: int = 32
    ascent: float = 3e-4
    steps: int = 8
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
        known = joined(accused.trusted, clean.search)
        weights = list(model.parameters())
        up = torch.optim.Adam(by_fan_in(weights, self.ascent))
        down = torch.optim.SGD(
            weights, lr=self.rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

        def unlearn(images: Tensor, labels: Tensor) -> Tensor:
            each = cross_entropy(model(images), labels, reduction="none")
            return (chance - each).clamp(min=0).mean()

        def relearn(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(model(images), labels)

        passes = max(1, -(-self.steps // -(-len(accused.suspects) // self.batch)))
        model.eval()
        kept = Kept(model, clean, drop=self.max_drop, method="D-BR")
        for turn in range(self.rounds):
            for group in down.param_groups:
                group["lr"] = self.rate * (1 - turn / self.rounds)
            for _ in range(passes):
                _pass(
                    model, accused.suspects, unlearn, up, self.batch, progress, turn / self.rounds
                )
            _pass(model, known, relearn, down, self.batch, progress, (turn + 0.5) / self.rounds)
            kept.look()
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
