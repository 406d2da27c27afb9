"""ANP: prune the neurons that are most sensitive to adversarial noise on their weights.

Paper: Wu, Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021, arXiv
2110.14430: masks m in [0, 1], one per neuron, minimise alpha CE(m) + (1 - alpha) CE(m + noise),
where the noise, within +-eps, maximises it; neurons with small masks are pruned. Deviations:
    - the noise stays within +-eps (the published code lets it go to twice that)
    - the threshold is the largest of the paper's sweep that accuracy on the calibration images
      allows; published results choose it by the ASR on the test images
    - without batch norms, masks are on the outputs of every hidden layer
    - fewer steps, for few images
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy
from guard.ml.networks.neurons import flow_on, furthest, hidden_layers
from guard.ml.training.fit import fit, require_images

THRESHOLDS = tuple(step / 20 for step in range(19))  # 0 to 0.9, the paper's sweep


@dataclass(frozen=True)
class Site:
    """The parameters that scale a group of neurons: `weight` (its first axis) and `bias` or ""."""

    weight: str
    bias: str


@dataclass(frozen=True, kw_only=True)
class Anp(Defense):
    """Adversarial neuron pruning; the weights that are left are not trained.

    Args:
        eps: bound of the noise, relative to the weights (paper: 0.4).
        steps: ascent steps of the noise before each step of the masks, of eps / steps each (paper:
            1).
        alpha: weight of the loss without noise (paper: 0.2).
        rate: of the masks' SGD with momentum 0.9 (paper: 0.2).
        rounds: passes over the search images (paper: 2,000 steps in all), `batch` images a step
            (paper: 128).
        max_drop: calibration accuracy (0..1) that pruning may cost.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Wu & Wang, Adversarial Neuron Pruning, NeurIPS 2021, arXiv 2110.14430"
    fast = fixed(rounds=10)
    ungated = fixed(rounds=1, rate=100.0, max_drop=1.0)

    eps: float = 0.4
    steps: int = 1
    alpha: float = 0.2
    rate: float = 0.2
    rounds: int = 50
    batch: int = 64
    max_drop: float = 0.02
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="ANP")
        before = accuracy(model, clean.calibration, clean.classes).overall
        masks = self.masks(
            model, sites_of(model, clean.search), clean.search, part(progress, 0.0, 0.9)
        )
        levels = [
            level
            for level in THRESHOLDS
            if any(bool((mask <= level).any()) for mask in masks.values())
        ]
        pruned, done = furthest(
            model,
            [partial(_cut, masks, level) for level in levels],
            clean,
            least=before - self.max_drop,
            progress=part(progress, 0.9, 1.0),
        )
        if not done:
            raise MethodFailed(
                f"ANP found no neuron that is sensitive to noise and whose pruning costs at most "
                f"{self.max_drop:.0%} accuracy on the calibration images.",
                code="nothing_found",
            )
        return pruned

    def masks(
        self, model: nn.Module, sites: Sequence[Site], data: Labelled, progress: Progress
    ) -> dict[Site, Tensor]:
        """Train one mask per neuron, float of shape R in [0, 1]; `model` stays as it is."""
        # Batch norms are in training mode, as published; their running statistics change in this
        # copy only.
        twin = copy.deepcopy(model).requires_grad_(requires_grad=False).train()
        own = {
            name: twin.get_parameter(name)
            for site in sites
            for name in (site.weight, site.bias)
            if name
        }
        masks = {
            site: own[site.weight].new_ones(len(own[site.weight])).requires_grad_()
            for site in sites
        }
        # Allocated once and redrawn for each batch.
        noise = {
            name: torch.zeros(len(weight), device=weight.device, requires_grad=True)
            for name, weight in own.items()
        }

        def run(
            images: Tensor, scales: Mapping[Site, Tensor], shifts: Mapping[str, Tensor] | None
        ) -> Tensor:
            logits: Tensor = functional_call(twin, _scaled(own, scales, shifts), (images,))
            return logits

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                for value in noise.values():
                    value.uniform_(-self.eps, self.eps)
            still = {site: mask.detach() for site, mask in masks.items()}
            for _ in range(self.steps):
                loss = cross_entropy(run(images, still, noise), labels)
                uphill = torch.autograd.grad(
                    loss, list(noise.values()), allow_unused=True, materialize_grads=True
                )
                with torch.no_grad():
                    for value, slope in zip(noise.values(), uphill, strict=True):
                        value.add_(slope.sign(), alpha=self.eps / self.steps).clamp_(
                            -self.eps, self.eps
                        )
            fixed = {name: value.detach() for name, value in noise.items()}
            return self.alpha * cross_entropy(run(images, masks, None), labels) + (
                1 - self.alpha
            ) * cross_entropy(run(images, masks, fixed), labels)

        optimiser = torch.optim.SGD(masks.values(), lr=self.rate, momentum=0.9)
        optimiser.register_step_post_hook(lambda *_: _clamp(masks))
        fit(
            twin,
            data,
            objective,
            optimiser,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="ANP,",
        )
        return {site: mask.detach() for site, mask in masks.items()}


def sites_of(model: nn.Module, data: Labelled) -> list[Site]:
    """The batch norms with scales, or every hidden layer if there are none.

    Raises:
        MethodFailed: there are neither.
    """
    flow = flow_on(model, data)
    found = [
        Site(layer.weight_name, layer.bias_name)
        for layer in flow.layers
        if layer.kind == "norm" and layer.variance is not None and layer.weight_name
    ]
    if not found:
        found = [
            Site(hidden.layer.weight_name, hidden.layer.bias_name)
            for hidden in hidden_layers(model, flow)
        ]
    return list(dict.fromkeys(found))


def _scaled(
    own: Mapping[str, Tensor], scales: Mapping[Site, Tensor], noise: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """weight (mask + noise) and bias (1 + noise), by name."""
    made = {}
    for site, scale in scales.items():
        weight = own[site.weight]
        factor = scale if noise is None else scale + noise[site.weight]
        made[site.weight] = weight * factor.view(-1, *[1] * (weight.dim() - 1))
        if site.bias and noise is not None:
            made[site.bias] = own[site.bias] * (1 + noise[site.bias])
    return made


@torch.no_grad()
def _clamp(masks: Mapping[Site, Tensor]) -> None:
    for mask in masks.values():
        mask.clamp_(0, 1)


@torch.no_grad()
def _cut(masks: Mapping[Site, Tensor], level: float, model: nn.Module) -> None:
    """Prune as published: the scale is set to zero, the shift stays."""
    for site, mask in masks.items():
        model.get_parameter(site.weight)[mask <= level] = 0
