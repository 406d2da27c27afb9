"""TSBD: reset the weights that unlearning the clean task changes most, then fine-tune.

Paper: Lin, Liu, Wei, Li, Xiong, "Unveiling and Mitigating Backdoor Vulnerabilities based on
Unlearning Weight Changes and Backdoor Activeness", NeurIPS 2024, arXiv 2405.20291. Steps:
    1. clean unlearning: increase the clean loss until accuracy is at chance
    2. neuron weight change: sum each neuron's absolute changes, and select the most changed neurons
       of all layers together
    3. in the original model, set the most changed sub-weights of those neurons to zero
    4. activeness-aware fine-tuning: minimise the clean loss plus lambda times the norm of its
       gradient
Deviations:
    - the neuron ratio is the largest at which fine-tuning recovers accuracy on the calibration
      images, otherwise the smallest; the authors' code reports every ratio with its test ASR
    - chance is the share of the largest class (their code: 0.1 for any data), and the unlearning
      rate is doubled if it has too little effect (their code: up to 1,000 passes)
    - neurons are the rows of every layer but the head, so linear layers of transformers have them
      too
    - exactly the planned number of sub-weights is reset; equal changes are ranked by position
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.networks.neurons import flow_on, hidden_layers
from guard.ml.training.fit import fit, require_accuracy, require_images
from guard.ml.training.sharpness import uphill


@dataclass(frozen=True, kw_only=True)
class Tsbd(Defense):
    """Two-stage backdoor defense; any architecture with hidden convolutions or linear layers.

    Args:
        unlearn_rate: SGD's rate of step 1 (authors' code: 1e-4), doubled after every `patience`
            passes.
        unlearn_rounds: the largest number of passes of step 1.
        least_ratio, most_ratio, ratios: the share of the neurons that are reset is one of `ratios`
            values in equal ratios (authors' code: 0.01 to 0.9), found by bisection.
        weights: share of these neurons' sub-weights that are set to zero (authors' code: 0.7).
        radius: length of the ascent step of each tensor; `alpha` = lambda / radius (authors' code:
            0.05 and 0.7).
        rounds: passes of step 4, `batch` images a step, SGD's `rate` constant (authors' code: 20,
            256, 0.01).
        budget: calibration accuracy (0..1) that a ratio may cost; 0.01 would be two images of
            200, which is noise.
        max_drop: the repair fails if the smallest ratio loses more calibration accuracy (0..1) than
            this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Lin et al., TSBD, NeurIPS 2024, arXiv 2405.20291"
    fast = fixed(rounds=2, unlearn_rate=1e-2)
    ungated = fixed(rounds=1, ratios=1, unlearn_rate=1.0, unlearn_rounds=2, max_drop=1.0)

    unlearn_rate: float = 1e-4
    patience: int = 5
    unlearn_rounds: int = 60
    least_ratio: float = 0.01
    most_ratio: float = 0.7
    ratios: int = 7
    weights: float = 0.7
    radius: float = 0.05
    alpha: float = 0.7
    rounds: int = 20
    batch: int = 64
    rate: float = 0.01
    budget: float = 0.02
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="TSBD")
        before = accuracy(model, clean.calibration, clean.classes).overall
        names = [
            hidden.layer.weight_name
            for hidden in hidden_layers(model, flow_on(model, clean.search))
        ]
        forgetful = self.unlearn(model, clean, part(progress, 0.0, 0.1))
        moved = changes(model, forgetful, names)
        del forgetful  # a whole model; not needed any more
        low, high, kept, candidate = 0, self.ratios, None, model
        tries, turn = math.ceil(math.log2(self.ratios + 1)), 0
        while low < high:
            middle = (low + high) // 2
            candidate = copy.deepcopy(model)
            reset(candidate, planned(moved, neurons=self._ratio(middle), weights=self.weights))
            start = 0.1 + 0.9 * turn / tries
            watch = part(
                progress,
                start,
                start + 0.9 / tries,
                f"TSBD, {self._ratio(middle):.0%} of the neurons,",
            )
            if self._recovers(candidate, clean, before, watch):
                low, kept = middle + 1, candidate
            else:
                high = middle
            turn += 1
        # If no ratio recovers, the last one tried is the smallest: its loss is for a policy to
        # judge, unless it exceeds `max_drop`.
        repaired = candidate if kept is None else kept
        require_accuracy(repaired, clean, before, drop=self.max_drop, method="TSBD")
        return repaired

    def unlearn(self, model: nn.Module, clean: CleanSet, progress: Progress) -> nn.Module:
        """Step 1: a copy whose accuracy on the search images is at chance.

        Raises:
            MethodFailed: `not_unlearnt`: it is still above chance after all passes.
        """
        copied = copy.deepcopy(model).train()
        counts = torch.bincount(clean.search.labels, minlength=clean.classes)
        chance = float(counts.max()) / len(clean.search)
        optimiser = torch.optim.SGD(copied.parameters(), lr=self.unlearn_rate, momentum=0.9)
        reached = False

        def at_chance(finished: int) -> bool:
            nonlocal reached
            reached = accuracy(copied, clean.search, clean.classes).overall <= chance
            if finished % self.patience == 0:
                optimiser.param_groups[0]["lr"] *= 2
            return reached

        fit(
            copied,
            clean.search,
            lambda images, labels: -cross_entropy(copied(images), labels),
            optimiser,
            rounds=self.unlearn_rounds,
            batch=self.batch,
            progress=progress,
            note="unlearning,",
            after_round=at_chance,
        )
        if not reached:
            raise MethodFailed(
                f"After {self.unlearn_rounds} passes the model still classifies the clean images "
                "better than chance; raise unlearn_rate.",
                code="not_unlearnt",
            )
        return copied

    def _ratio(self, index: int) -> float:
        share = index / max(1, self.ratios - 1)
        return self.least_ratio ** (1 - share) * self.most_ratio**share

    def _recovers(
        self, model: nn.Module, clean: CleanSet, before: float, progress: Progress
    ) -> bool:
        """Step 4, in place; whether accuracy recovers."""
        optimiser = torch.optim.SGD(model.parameters(), lr=self.rate, momentum=0.9)
        ascent = partial(each, radius=self.radius)
        model.train()
        try:
            fit(
                model,
                clean.search,
                lambda images, labels: uphill(model, images, labels, ascent, share=self.alpha),
                optimiser,
                rounds=self.rounds,
                batch=self.batch,
                progress=progress,
            )
            now = accuracy(model.eval(), clean.calibration, clean.classes).overall
        except MethodFailed as error:
            if error.code != "non_finite":
                raise
            return False  # channels set to zero can make gradients explode; fewer of them may not
        return now >= before - self.budget


def each(
    _weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, radius: float
) -> dict[str, Tensor]:
    """An ascent step of length `radius` for each tensor along its own gradient, of its shape.

    This is the step of the authors' code, with their alpha and radius. The penalty is then on the
    sum of the norms of the tensors' gradients; the paper's formula has one norm over all. Tensors
    are float.
    """
    return {
        name: radius * gradient / gradient.norm().clamp_min(1e-12)
        for name, gradient in gradients.items()
    }


def changes(model: nn.Module, other: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Step 2: absolute changes of each layer, float of shape neurons,sub-weights, on the CPU."""
    return {
        name: (other.get_parameter(name) - model.get_parameter(name))
        .detach()
        .abs()
        .flatten(1)
        .cpu()
        for name in names
    }


def planned(moved: Mapping[str, Tensor], *, neurons: float, weights: float) -> dict[str, Tensor]:
    """The sub-weights to reset: a bool mask of shape neurons,sub-weights for each layer.

    They are the share `weights` (0..1) of the most changed sub-weights of the share `neurons`
    (0..1) of the most changed neurons. Both rankings are over all layers together, so a chosen
    neuron may lose all of its sub-weights or hardly any.
    """
    scores = torch.cat([change.sum(1) for change in moved.values()])
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[_largest(scores, neurons)] = True
    owned = torch.cat(
        [
            mine[:, None].expand_as(change).flatten()
            for mine, change in zip(
                chosen.split([len(change) for change in moved.values()]),
                moved.values(),
                strict=True,
            )
        ]
    )
    flat, places = (
        torch.cat([change.flatten() for change in moved.values()]),
        torch.nonzero(owned).flatten(),
    )
    gone = torch.zeros_like(owned)
    gone[places[_largest(flat[places], weights)]] = True
    parts = gone.split([change.numel() for change in moved.values()])
    return {
        name: one.view_as(change) for (name, change), one in zip(moved.items(), parts, strict=True)
    }


@torch.no_grad()
def reset(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Step 3: set the masked sub-weights to zero in place; later training may change them.

    Each bool mask has as many entries as the weight.
    """
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        weight[mask.view(weight.shape).to(weight.device)] = 0


def _largest(values: Tensor, share: float) -> Tensor:
    """Positions of the largest `share` of the values, at least one."""
    count = max(1, math.floor(share * len(values) + 1e-6))
    return values.argsort(descending=True, stable=True)[:count]
