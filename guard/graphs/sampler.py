"""Sampling latents: DDIM with noise that depends on a seed and a number alone.

DDIM (Song et al., ICLR 2021) over a linear schedule, with the guidance of 3M-Diffusion: w times the
prediction for the prompt plus 1 - w times that for no prompt. Noise is counter-based (Philox),
keyed by seed and sample number: the same for every prompt, every batch and every order.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from guard.core.errors import ManifestRejected
from guard.graphs.denoiser import Denoiser

MAX_TIMES = 1000
MAX_GUIDANCE = 20
_LINEAR = "linear"
_FIRST, _LAST = 0.1, 20.0  # betas of the linear schedule, times the number of times


class SamplerSettings(Protocol):
    """What a manifest says: DDIM steps, noise 0..1, weight of the prompt, schedule."""

    @property
    def steps(self) -> int: ...
    @property
    def eta(self) -> float: ...
    @property
    def guidance(self) -> float: ...
    @property
    def schedule(self) -> str: ...


class Sampler:
    """DDIM by a manifest's settings, over a schedule of `count` times.

    Raises:
        ManifestRejected: `manifest_bad_sampler`: the schedule is not known, there are more steps
            than times, or a value is out of range.
    """

    def __init__(self, config: SamplerSettings, count: int) -> None:
        if not 1 <= config.steps <= count <= MAX_TIMES:
            raise _refuse(f"1 <= steps <= times <= {MAX_TIMES} does not hold")
        if not 0 <= config.eta <= 1 or not 0 <= config.guidance <= MAX_GUIDANCE:
            raise _refuse(f"eta must be in 0..1 and guidance in 0..{MAX_GUIDANCE}")
        if config.schedule != _LINEAR:
            raise _refuse(f"schedule must be {_LINEAR!r}")
        self.config = config
        self.count = count
        betas = torch.linspace(  # "cpu" even while a model is laid out on the device "meta"
            _FIRST / count, _LAST / count, count, dtype=torch.float64, device="cpu"
        )
        #: float32 `count`: how much of the clean latent's variance is left at each time
        self.kept = torch.cumprod(1 - betas.clamp(max=0.999), 0).float()

    def times(self) -> list[int]:
        """The times that sampling visits, the noisiest first."""
        spread = np.linspace(self.count - 1, 0, self.config.steps)
        return [round(float(time)) for time in spread]

    def noisy(self, clean: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Standardised latents N,D with noise N,D of the times int64 N added, for training."""
        kept = self.kept.to(clean.device)[time].unsqueeze(1)
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def entered(self, denoiser: Denoiser, context: Tensor) -> tuple[Tensor, ...]:
        """Contexts N,C as the first layer sees them, and no context unless the prompt is all."""
        own = denoiser.entered(context)
        return (own,) if self.config.guidance == 1 else (own, denoiser.entered(denoiser.nothing(1)))

    def predict(
        self, denoiser: Denoiser, noisy: Tensor, time: int, entered: tuple[Tensor, ...]
    ) -> Tensor:
        """The guided prediction N,D of the clean latents at one time; contexts from `entered`."""
        count, weight = len(noisy), self.config.guidance
        step = torch.full((1,), self.scaled(time), device=noisy.device)  # one for all rows
        both = denoiser.given(noisy, step, *entered)
        return both if len(entered) == 1 else weight * both[:count] + (1 - weight) * both[count:]

    def scaled(self, time: int) -> float:
        """A time as the denoiser takes it, in [0, 1]."""
        return time / max(1, self.count - 1)

    def sample(self, denoiser: Denoiser, context: Tensor, noise: Tensor) -> Tensor:
        """Latents N,D of the autoencoder; differentiable in the contexts.

        Args:
            denoiser: of the model.
            context: float32 N,C.
            noise: float32 N,steps + 1,D from `noise`.
        """
        times, entered = self.times(), self.entered(denoiser, context)
        state = noise[:, 0]
        clean = state
        for place, time in enumerate(times):
            clean = self.predict(denoiser, state, time, entered)
            if place + 1 == len(times):
                break
            kept, after = float(self.kept[time]), float(self.kept[times[place + 1]])
            error = (state - math.sqrt(kept) * clean) / math.sqrt(1 - kept)
            spread = self.config.eta * math.sqrt((1 - after) / (1 - kept) * (1 - kept / after))
            direct = math.sqrt(max(0.0, 1 - after - spread**2))
            state = math.sqrt(after) * clean + direct * error + spread * noise[:, place + 1]
        return denoiser.raw(clean)

    def noise(self, keys: Sequence[tuple[int, int]], dimensions: int) -> Tensor:
        """Normal noise, float32 K,steps + 1,D: a row for each key (seed, sample number)."""
        count = (self.config.steps + 1) * dimensions
        rows = np.stack([_normal(seed, number, count) for seed, number in keys])
        return torch.from_numpy(rows).reshape(len(keys), self.config.steps + 1, dimensions)


@lru_cache(maxsize=8192)
def _normal(seed: int, number: int, count: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Box and Muller's transform of Philox's raw numbers, which no release of NumPy changes."""
    raw = np.random.Philox(key=[seed % 2**64, number]).random_raw(2 * ((count + 1) // 2))
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    radius = np.sqrt(-2 * np.log(uniform[0::2]))
    angle = 2 * np.pi * uniform[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32)


def _refuse(what: str) -> ManifestRejected:
    return ManifestRejected(f"config.json: sampler: {what}.", code="manifest_bad_sampler")
