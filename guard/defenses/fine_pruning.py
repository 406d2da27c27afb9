"""Fine-pruning: prune features that are dormant on clean images, then fine-tune.

Paper: Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
Networks", RAID 2018, arXiv 1805.12185, section 4. Deviations:
    - the pruned features are the inputs of the head (in a residual network the sum, not one
      branch), ranked by their mean absolute value, since those of a transformer do not come from a
      ReLU
    - the result is the last model within the budget, not the first one outside it (as in
      BackdoorBench)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import BATCH, accuracy, device_of
from guard.ml.networks.dataflow import Layer, with_features
from guard.ml.networks.neurons import flow_on, furthest
from guard.ml.training.fit import require_accuracy, require_images, tune


@dataclass(frozen=True, kw_only=True)
class FinePruning(Defense):
    """Prune the head's inputs as far as clean accuracy allows, then fine-tune all weights.

    Pruned inputs stay pruned.

    Args:
        prune_drop: calibration accuracy (0..1) that pruning may cost; fine-tuning recovers it.
        steps: number of equal pruning steps from no input to all inputs.
        rounds: passes over the search images, `batch` images a step, with SGD's `rate` over one
            cycle.
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Liu et al., Fine-Pruning, RAID 2018, arXiv 1805.12185"
    fast = fixed(rounds=1)
    ungated = fixed(prune_drop=1.0, steps=4, rounds=1, max_drop=1.0)

    prune_drop: float = 0.04
    steps: int = 50
    rounds: int = 20
    batch: int = 64
    rate: float = 0.01
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="Fine-pruning")
        before = accuracy(model, clean.calibration, clean.classes).overall
        progress(0.0, "finding dormant features")
        head = _head(model, clean.search)
        order = activity(model, head, clean.search).argsort(stable=True)
        counts = sorted(
            {math.ceil(len(order) * step / self.steps) for step in range(1, self.steps)}
            - {len(order)}
        )
        pruned, done = furthest(
            model,
            [partial(_mute, head=head, columns=order[:count]) for count in counts],
            clean,
            least=before - self.prune_drop,
            progress=part(progress, 0.05, 0.3),
        )
        muted = partial(_mute, pruned, head, order[: counts[done - 1] if done else 0])
        self._tune(pruned, clean, muted, part(progress, 0.3, 1.0))
        require_accuracy(pruned, clean, before, drop=self.max_drop, method="Fine-pruning")
        return pruned

    def _tune(
        self, model: nn.Module, clean: CleanSet, muted: Callable[[], None], progress: Progress
    ) -> None:
        tune(
            model,
            clean.search,
            lambda images, labels: cross_entropy(model(images), labels),
            rate=self.rate,
            weight_decay=5e-4,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="fine-tuning,",
            after_step=muted,
        )


@torch.no_grad()
def activity(model: nn.Module, head: Layer, data: Labelled) -> Tensor:
    """Mean absolute value of each input of the head over `data`, float64 D on the CPU."""
    parts = [
        with_features(model, head, images)[1].abs().double().sum(0).cpu()
        for images, _ in data.batches(BATCH, device=device_of(model))
    ]
    return torch.stack(parts).sum(0) / len(data)


def _head(model: nn.Module, data: Labelled) -> Layer:
    flow = flow_on(model, data)
    head = None if flow.head is None else flow.layers[flow.head]
    if head is None or not head.weight_name:
        raise MethodFailed(
            "The network's last layer cannot be found, or its weight is not a parameter; "
            "fine-pruning has nothing to prune.",
            code="no_head",
        )
    return head


@torch.no_grad()
def _mute(model: nn.Module, head: Layer, columns: Tensor) -> None:
    """Set the head's weights of these inputs to zero."""
    weight, used = model.get_parameter(head.weight_name), head.weight
    assert used is not None  # noqa: S101 - for mypy: the caller took a head with a weight
    # A head written as features @ W stores its inputs first.
    if (weight.shape, weight.stride()) == (used.shape, used.stride()):
        weight[:, columns] = 0
    else:
        weight[columns] = 0
