"""The denoiser: a small network that predicts the clean latent from a noisy one and a context.

Latents are standardised inside by `shift` and `scale`, which are stored with the weights. The
context is dropped for part of the training and replaced by the learnt `null`.
"""

import math

import torch
from torch import Tensor, nn

_FREQUENCIES = 16


class Block(nn.Module):
    """A residual layer whose output is scaled and shifted by the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.time = nn.Linear(width, 2 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, state: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time).chunk(2, dim=-1)
        if len(scale) == 1:  # one time for all rows, as in sampling: one pass over the memory
            seen = nn.functional.layer_norm(
                state, self.norm.normalized_shape, 1 + scale[0], shift[0], self.norm.eps
            )
        else:
            seen = self.norm(state) * (1 + scale) + shift
        out: Tensor = self.outer(_silu(self.inner(seen)))
        return out.add_(state)


class Denoiser(nn.Module):
    """Predicts standardised clean latents N,latent.

    Args:
        latent: dimensions of the latents.
        context: dimensions of the contexts.
        width: of the layers.
        depth: how many blocks.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, latent: int, context: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(latent + context, width)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.out = nn.Linear(width, latent)
        self.null = nn.Parameter(torch.randn(context) * 0.02)
        self.register_buffer("shift", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))

    def forward(self, noisy: Tensor, step: Tensor, context: Tensor) -> Tensor:
        """The clean standardised latents.

        Args:
            noisy: standardised noisy latents, float32 N,latent.
            step: times, float32 N in [0, 1], or one for all rows.
            context: float32 N,context; `nothing(N)` for none.
        """
        return self.given(noisy, step, self.entered(context))

    def entered(self, context: Tensor) -> Tensor:
        """What the first layer makes of contexts N,context alone: float32 N,width.

        It is the same in all steps of a sampler.
        """
        weight = self.enter.weight[:, self.out.out_features :]
        return nn.functional.linear(context, weight, self.enter.bias)

    def given(self, noisy: Tensor, step: Tensor, *entered: Tensor) -> Tensor:
        """As `forward`, for the same latents with each of several contexts from `entered`.

        Returns:
            float32 K * N,latent for K contexts (N,width each, or 1,width for all rows).
        """
        powers = torch.arange(_FREQUENCIES, device=noisy.device, dtype=noisy.dtype)
        angles = step.unsqueeze(1) * math.pi * torch.exp2(powers * 0.5)
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        seen = nn.functional.linear(noisy, self.enter.weight[:, : noisy.shape[1]])
        state = torch.cat([seen + one for one in entered])
        for block in self.blocks:
            state = block(state, time)
        clean: Tensor = self.out(_silu(state))
        return clean

    def nothing(self, count: int) -> Tensor:
        """The context of no prompt, float32 `count`,context."""
        return self.null.expand(count, -1)

    def standardised(self, latents: Tensor) -> Tensor:
        """Latents N,latent of the autoencoder, as the denoiser sees them."""
        return (latents - self.shift) / self.scale

    def raw(self, standardised: Tensor) -> Tensor:
        """The reverse of `standardised`."""
        return standardised * self.scale + self.shift


def _silu(values: Tensor) -> Tensor:
    """In the place of `values` in sampling: what is allocated anew costs as much as it computes."""
    return nn.functional.silu(values, inplace=not torch.is_grad_enabled())
