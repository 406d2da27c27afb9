"""Relabelling: train accused training images to the class that a clean reference gives them.

Source: our own measurements (docs/decisions/0036); the same idea as unlearning a known trigger with
true labels (Wang et al., Neural Cleanse, S&P 2019, section VI), with the images that the attacker
made in place of a trigger that was guessed.

Only suspects whose reference is sure of a class other than their label are used. A suspect whose
reference agrees with its label (clean-label poison, or a clean image) would teach the backdoor once
more, and an unsure one would teach noise. Clean and trusted images are trained beside them, so that
the task is kept and the suspects stay a part of each batch.

The default rate and batch norm's mode were chosen on two development models whose triggers were
known (docs/decisions/0036): no number measured on those is evidence.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.progress import Progress
from guard.defenses._base import fixed
from guard.defenses._informed import Accused, InformedDefense, require_suspects
from guard.ml.cleanset import CleanSet, Labelled, joined
from guard.ml.training.fit import Kept, fit, require_images


@dataclass(frozen=True, kw_only=True)
class Relabelling(InformedDefense):
    """Cross-entropy on relabelled suspects, trusted and clean images by SGD, one cycle of the rate.

    Batch-norm statistics stay as they are: these images are fewer than those that taught the model,
    and on a network with a blended trigger new statistics cost two points of accuracy more. The
    latest pass that kept the calibration accuracy is taken.

    Args:
        rounds: passes over all images.
        batch: images a step.
        rate, momentum, weight_decay: of SGD; with fixed statistics a few times this rate costs
            accuracy at once, and the suspects are learnt in the first passes at this one already.
        max_drop: calibration accuracy (0..1) that may be lost, as much as the packaged policies
            allow; one image always may be.
        min_suspects: fewer relabelled images than this teach nothing.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "own method; see Wang et al., Neural Cleanse, S&P 2019, section VI"
    fast = fixed(rounds=3)
    ungated = fixed(rounds=1, max_drop=1.0)

    rounds: int = 10
    batch: int = 64
    rate: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-4
    max_drop: float = 0.02
    min_suspects: int = 5
    min_per_class: int = 2

    def repair_informed(
        self, model: nn.Module, clean: CleanSet, accused: Accused, *, progress: Progress
    ) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="Relabelling")
        relabelled = _sure(accused)
        require_suspects(
            len(relabelled),
            at_least=self.min_suspects,
            method="Relabelling",
            kind="accused and surely mislabelled",
        )
        kept = Kept(model, clean, drop=self.max_drop, method="Relabelling")

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(model(images), labels)

        def look(_finished: int) -> bool:
            kept.look()
            return False

        model.eval()
        fit(
            model,
            joined(relabelled, accused.trusted, clean.search),
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
            note="relabelling,",
            decay=True,
            after_round=look,
        )
        kept.restore()
        return model


def _sure(accused: Accused) -> Labelled:
    """The suspects that a reference is sure to be of another class, with that class."""
    given, labels = accused.relabelled, accused.suspects.labels
    chosen = (given >= 0) & (given != labels)
    return Labelled(accused.suspects.images[chosen], given[chosen])
