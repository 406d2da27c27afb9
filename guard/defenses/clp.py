"""CLP: prune the channels that are most sensitive to small changes of the input.

Paper: Zheng, Tang, Li, Liu, "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022,
arXiv 2208.03111: a channel's bound is the largest singular value of its filter times |gamma| /
sqrt(var + eps) of its batch norm; channels over mean + u std of their layer are pruned. Deviations:
    - a norm is paired with the convolution whose output it takes (the published code pairs by order
      of registration, wrong for pre-activation nets and shortcuts); a layer without such a norm is
      measured and pruned by itself
    - linear layers count with their rows' lengths, so that transformers have channels too
    - the method needs no data, but we limit its cost: the threshold falls from `most_u` to `u` as
      far as accuracy on the calibration images allows
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.networks.neurons import Hidden, flow_on, furthest, hidden_layers, lipschitz
from guard.ml.training.fit import require_images


@dataclass(frozen=True, kw_only=True)
class Clp(Defense):
    """Channel Lipschitzness pruning of every hidden layer; nothing is trained.

    In a layer of n channels no bound is more than (n - 1) / sqrt(n) standard deviations above the
    mean: in a layer of fewer than 11 channels none is ever pruned at u = 3.

    Args:
        u: standard deviations above the layer's mean (paper: 3 on CIFAR-10).
        most_u: the threshold to start from; it falls by `step`.
        max_drop: calibration accuracy (0..1) that may be lost.
        min_per_class: search images that every class needs; the same as in other defenses, so that
            results are comparable.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Zheng et al., Channel Lipschitzness Pruning, ECCV 2022, arXiv 2208.03111"
    )
    ungated = fixed(u=0.0, most_u=0.5, max_drop=1.0)

    u: float = 3.0
    most_u: float = 5.0
    step: float = 0.25
    max_drop: float = 0.02
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="CLP")
        before = accuracy(model, clean.calibration, clean.classes).overall
        progress(0.1, "bounding channels")
        scored = [
            (hidden, scores(lipschitz(hidden.layer, hidden.norm)))
            for hidden in hidden_layers(model, flow_on(model, clean.search))
        ]
        count = max(0, math.floor((self.most_u - self.u) / self.step + 1e-9))
        levels = [
            level
            for level in (self.u + self.step * index for index in range(count, -1, -1))
            if any(bool((found > level).any()) for _, found in scored)
        ]
        if not levels:
            raise MethodFailed(
                f"No channel's Lipschitz bound is {self.u:g} standard deviations above its layer's "
                "mean; there is nothing to prune.",
                code="nothing_found",
            )
        pruned, done = furthest(
            model,
            [partial(_cut, scored, level) for level in levels],
            clean,
            least=before - self.max_drop,
            progress=progress,
        )
        if not done:
            raise MethodFailed(
                f"Without its channels of the largest Lipschitz bounds the model loses more than "
                f"{self.max_drop:.0%} accuracy on the calibration images.",
                code="accuracy_collapsed",
            )
        return pruned


def scores(bounds: Tensor) -> Tensor:
    """Standard deviations above the layer's mean, float C; 0 if all bounds are equal.

    Args:
        bounds: of the layer's channels, float C.

    Raises:
        MethodFailed: a bound is not finite.
    """
    if not bool(torch.isfinite(bounds).all()):
        raise MethodFailed("A weight of the model is not finite.", code="non_finite")
    spread = float(bounds.std()) if len(bounds) > 1 else 0.0
    return (bounds - bounds.mean()) / spread if spread > 0 else torch.zeros_like(bounds)


def _cut(scored: list[tuple[Hidden, Tensor]], level: float, model: nn.Module) -> None:
    for hidden, found in scored:
        hidden.silence(model, torch.nonzero(found > level).flatten())
