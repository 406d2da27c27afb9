"""A probe: from a latent to which fragments its molecule holds, differentiable.

The decoder chooses tokens one by one, so that no gradient passes through it. The probe learns from
latents that were decoded which fragments come out, and stands in for the decoder in searches; what
a search finds is decoded before it counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.graphs.denoiser import Denoiser
from guard.graphs.model import GraphModel, SamplerConfig
from guard.graphs.sampler import Sampler
from guard.graphs.survey import Survey, labels

_WIDTH = 96
_BATCH = 256


@dataclass(frozen=True)
class Probe:
    """Reads the fragments `names` off latents."""

    names: tuple[str, ...]
    network: nn.Module
    denoiser: Denoiser

    def logits(self, latents: Tensor) -> Tensor:
        """Logits float32 N,F of raw latents N,D."""
        found: Tensor = self.network(self.denoiser.standardised(latents))
        return found


def fit_probe(
    model: GraphModel,
    found: Survey,
    names: Sequence[str],
    *,
    steps: int = 400,
    watch: Callable[[float], None] = lambda _: None,
) -> Probe:
    """Train a probe on what a survey decoded; draws from torch's global generator."""
    latents, flags = labels(list(found.routes.values()), names)
    inputs = model.denoiser.standardised(latents).detach()
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, len(names))
    ).to(inputs.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(inputs), (_BATCH,)).to(inputs.device)
            noisy = inputs[rows] + 0.1 * torch.randn_like(inputs[rows])
            loss = functional.binary_cross_entropy_with_logits(network(noisy), flags[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step % 20 == 0:
                for group in optimiser.param_groups:
                    group["lr"] = 1e-2 * (1 - step / steps)
                watch(step / steps)
    return Probe(tuple(names), network.eval().requires_grad_(requires_grad=False), model.denoiser)


def short_sampler(model: GraphModel, steps: int) -> Sampler:
    """The model's sampler with fewer steps, for searches; what they find is sampled in full."""
    own = model.sampler.config
    steps = min(steps, own.steps)
    config = SamplerConfig(steps=steps, eta=own.eta, guidance=own.guidance, schedule=own.schedule)
    return Sampler(config, model.sampler.count)
