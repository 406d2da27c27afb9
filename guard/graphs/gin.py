"""A graph network with dense adjacency: molecules to one vector each.

GIN (Xu et al., ICLR 2019) with one set of weights for each kind of bond. Molecules have at most a
few dozen atoms, so that padded dense matrices beat sparse ones.
"""

import torch
from torch import Tensor, nn

from guard.graphs.molecule import ATOMS, BOND_KINDS, GraphBatch

_HYDROGENS = 5  # 0..4
_SCALE = 0.1  # of sums over atoms, which then are of the size of one


class Gin(nn.Module):
    """Molecules to vectors float32 N,`out`.

    Args:
        width: of the layers.
        layers: how many bonds far an atom sees.
        out: of the last linear layer.
    """

    def __init__(self, width: int, layers: int, out: int) -> None:
        super().__init__()
        self.atoms = nn.Embedding(1 + len(ATOMS), width)
        self.hydrogens = nn.Embedding(_HYDROGENS, width)
        self.messages = nn.ModuleList(
            nn.Linear(width * (1 + len(BOND_KINDS)), width) for _ in range(layers)
        )
        self.updates = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.head = nn.Sequential(
            nn.Linear(width * (layers + 1), 2 * width), nn.SiLU(), nn.Linear(2 * width, out)
        )

    def forward(self, batch: GraphBatch) -> Tensor:
        present = (batch.atoms > 0).unsqueeze(-1).float()
        state = (self.atoms(batch.atoms) + self.hydrogens(batch.hydrogens)) * present
        kinds = [(batch.bonds == kind + 1).float() for kind in range(len(BOND_KINDS))]
        sums = [state.sum(1) * _SCALE]
        for message, update, norm in zip(self.messages, self.updates, self.norms, strict=True):
            seen = torch.cat([state, *(kind @ state for kind in kinds)], dim=-1)
            state = (state + update(nn.functional.silu(norm(message(seen))))) * present
            sums.append(state.sum(1) * _SCALE)
        vectors: Tensor = self.head(torch.cat(sums, dim=-1))
        return vectors
