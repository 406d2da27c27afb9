"""Prompts to vectors: piece embeddings, one convolution, pooling.

Trained with a graph tower by a contrastive loss and then frozen, as the text tower of 3M-Diffusion.
`from_embeddings` is open to gradients, for searches over the text.
"""

import math

import torch
from torch import Tensor, nn

from guard.graphs.text_pieces import PAD

_KERNEL = 5


class TextEncoder(nn.Module):
    """Piece numbers to contexts of length sqrt(`out`).

    Args:
        pieces: how many numbers there are.
        width: of the embeddings; the convolution has twice as many channels.
        out: of the context.
    """

    def __init__(self, pieces: int, width: int, out: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(pieces, width, padding_idx=PAD)
        self.convolution = nn.Conv1d(width, 2 * width, _KERNEL, padding=_KERNEL // 2)
        self.head = nn.Linear(4 * width, out)
        self.out = out

    def forward(self, numbers: Tensor) -> Tensor:
        """Contexts float32 N,out of piece numbers int64 N,L."""
        return self.from_embeddings(self.embedding(numbers), numbers != PAD)

    def from_embeddings(self, embedded: Tensor, present: Tensor) -> Tensor:
        """Contexts float32 N,out of embeddings float32 N,L,width; `present` is bool N,L."""
        there = present.unsqueeze(-1)
        state = self.convolution((embedded * there).transpose(1, 2)).transpose(1, 2)
        state = nn.functional.silu(state)
        mean = (state * there).sum(1) / there.sum(1).clamp_min(1)
        most = state.masked_fill(~there, -1.0).amax(1)
        vectors = self.head(torch.cat([mean, most], dim=-1))
        return nn.functional.normalize(vectors, dim=-1) * math.sqrt(self.out)
