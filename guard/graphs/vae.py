"""The variational autoencoder: molecules to latents by a GIN, latents to molecules token by token.

The decoder is a GRU over the tokens of `guard.graphs.grammar`; at every step it sees the previous
token, the token that opened the current motif, what that motif can still take, and the latent. It
is greedy, under the grammar's masks, and decodes a whole batch at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from guard.graphs.gin import Gin
from guard.graphs.grammar import MAX_STEPS, Grammar
from guard.graphs.growth import State, grown
from guard.graphs.molecule import MAX_HEAVY_ATOMS, GraphBatch
from guard.graphs.motif_tree import Node

_RULES = 6  # of `State.place`
_CHUNK = 512  # molecules decoded at once
IGNORED = -100


class Sequences(NamedTuple):
    """Token sequences, int64 N,T each: what stands before each token, and the token itself.

    `previous` and `opened` are 0 at the start, `target` is `IGNORED` where a sequence has ended.
    """

    previous: Tensor
    opened: Tensor
    rules: Tensor
    target: Tensor

    def rows(self, index: Tensor) -> "Sequences":
        """The sequences at `index` (int64 K), cut to the longest of them."""
        target = self.target[index]
        length = int((target != IGNORED).sum(1).max()) if len(target) else 0
        return Sequences(
            self.previous[index][:, :length],
            self.opened[index][:, :length],
            self.rules[index][:, :length],
            target[:, :length],
        )


def sequences(grammar: Grammar, encoded: Sequence[Sequence[int]]) -> Sequences:
    """Encoded trees as padded CPU tensors."""
    length = max(map(len, encoded), default=1)
    shape = len(encoded), length
    previous, opened, rules = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    target = torch.full(shape, IGNORED, dtype=torch.int64)
    for row, numbers in enumerate(encoded):
        places = grammar.trace(numbers)
        count = len(numbers)
        target[row, :count] = torch.tensor(numbers)
        previous[row, 1:count] = target[row, : count - 1]
        opened[row, :count] = torch.tensor([place[0] for place in places])
        rules[row, :count] = torch.tensor([place[1] for place in places])
    return Sequences(previous, opened, rules, target)


class MotifVae(nn.Module):
    """Encoder and decoder.

    Args:
        grammar: the decoder's language.
        latent: dimensions of the latent space.
        width: of the GIN's layers.
        layers: of the GIN.
        hidden: of the GRU.
        embedding: of tokens.
    """

    def __init__(
        self, grammar: Grammar, *, latent: int, width: int, layers: int, hidden: int, embedding: int
    ) -> None:
        super().__init__()
        self.grammar = grammar
        self.latent = latent
        self.encoder = Gin(width, layers, 2 * latent)
        self.tokens = nn.Embedding(len(grammar), embedding)
        self.opened = nn.Embedding(len(grammar), embedding)
        self.rules = nn.Embedding(_RULES, embedding)
        self.start = nn.Linear(latent, hidden)
        self.reach = nn.Linear(latent, embedding)
        self.gru = nn.GRU(3 * embedding, hidden, batch_first=True)
        self.out = nn.Linear(hidden + embedding, len(grammar))

    def encode(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, float32 N,latent each."""
        mean, spread = self.encoder(batch).chunk(2, dim=-1)
        return mean, spread.clamp(-10.0, 4.0)

    def logits(self, latents: Tensor, given: Sequences) -> Tensor:
        """Logits N,T,V of each token, given the true ones before it; latents float32 N,latent."""
        state = torch.tanh(self.start(latents)).unsqueeze(0)
        outputs, _ = self._run(given.previous, given.opened, given.rules, latents, state)
        return outputs

    @torch.no_grad()
    def decode(self, latents: Tensor, budget: int = MAX_HEAVY_ATOMS) -> list[Node | None]:
        """The likeliest tree for each latent (float32 N,latent), token by token.

        None where a molecule did not end within `budget` atoms or `MAX_STEPS` tokens.
        """
        found: list[Node | None] = []
        for part in latents.split(_CHUNK):
            found += self._decode(part, budget)
        return found

    def _run(
        self, previous: Tensor, opened: Tensor, rules: Tensor, latents: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        reach = self.reach(latents).unsqueeze(1).expand(-1, previous.shape[1], -1)
        seen = torch.cat(
            [self.tokens(previous), self.opened(opened) + self.rules(rules), reach], dim=-1
        )
        outputs, state = self.gru(seen, state)
        return self.out(torch.cat([outputs, reach], dim=-1)), state

    def _decode(self, latents: Tensor, budget: int) -> list[Node | None]:
        """As `decode`, for one chunk. Rows that have written the same so far share a state."""
        states = [State(self.grammar, budget)]
        found: list[Node | None] = [None] * len(latents)
        open_rows = list(range(len(latents)))
        owners = [0] * len(latents)  # for each open row, the place of its state
        previous = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        hidden = torch.tanh(self.start(latents)).unsqueeze(0)
        for _ in range(MAX_STEPS):
            owner = torch.tensor(owners)
            places = torch.tensor([state.place() for state in states])[owner].to(latents.device)
            logits, hidden = self._run(
                previous.unsqueeze(1), places[:, :1], places[:, 1:], latents, hidden
            )
            allowed = self.grammar.masks(states)[owner].to(latents.device)
            best_of = torch.where(allowed, logits[:, 0], -torch.inf).max(1)
            best, stuck = best_of.indices, best_of.values.isneginf()
            written = list(zip(owners, best.masked_fill(stuck, -1).tolist(), strict=True))
            states, numbers, trees = grown(states, [one for one in written if one[1] >= 0])
            for place, one in enumerate(written):
                if one in trees:
                    found[open_rows[place]] = trees[one]
            kept = [place for place, one in enumerate(written) if one in numbers]
            if not kept:
                break
            if len(kept) < len(open_rows):  # what has ended need not be kept
                index = torch.tensor(kept, device=latents.device)
                best, latents, hidden = best[index], latents[index], hidden[:, index]
                open_rows = [open_rows[place] for place in kept]
            owners = [numbers[written[place]] for place in kept]
            previous = best
        return found
