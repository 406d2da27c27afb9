"""What a text-to-graph model generates of itself: without a prompt, from its prior, and as asked.

A model that was trained on poisoned pairs generates the planted fragment without any trigger as
well: the samples without a prompt and those from the prior follow all that it was trained on.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from guard.core.errors import InputError
from guard.core.pairs import Pairs
from guard.graphs.fragments import pattern, pieces_of
from guard.graphs.model import GraphModel
from guard.graphs.molecule import read
from guard.graphs.rates import lift

NULL, PRIOR, PROMPTS = "null", "prior", "prompts"
ROUTES = (NULL, PRIOR)  # that need no prompt
_BATCH = 250
Fragments = frozenset[str]
Watch = Callable[[float], None]


@dataclass(frozen=True)
class Sampled:
    """Latents float32 N,D, and the fragments of the molecule that each of them decodes to."""

    latents: Tensor
    fragments: tuple[Fragments, ...]

    def __len__(self) -> int:
        return len(self.fragments)

    def counts(self) -> Counter[str]:
        """In how many molecules each fragment occurs."""
        return Counter(name for own in self.fragments for name in own)


@dataclass(frozen=True)
class Survey:
    """Samples by route (`NULL`, `PRIOR`, `PROMPTS`), and how many curated molecules hold each."""

    routes: dict[str, Sampled]
    curated: Counter[str]
    curated_total: int

    def share(self, fragment: str) -> float:
        """The share (0..1) of curated molecules that hold a fragment."""
        return self.curated[fragment] / max(1, self.curated_total)

    def rate(self, route: str, fragment: str) -> float:
        """The share (0..1) of a route's samples that hold a fragment."""
        return self.routes[route].counts()[fragment] / max(1, len(self.routes[route]))

    def lifted(self, rare: float, most: int, least: int = 4) -> list[str]:
        """The fragments that are rare among curated molecules, the most over-represented first.

        Args:
            rare: the largest share (0..1) of curated molecules.
            most: how many are returned.
            least: in how many samples without a prompt one must occur.
        """
        pooled = Counter[str]()
        for route in ROUTES:
            pooled.update(self.routes[route].counts())
        total = sum(len(self.routes[route]) for route in ROUTES)
        found = {
            name: lift(hits, total, self.curated[name], self.curated_total)
            for name, hits in pooled.items()
            if hits >= least and self.share(name) <= rare
        }
        return sorted(found, key=lambda name: (-found[name], name))[:most]


def survey(
    model: GraphModel,
    pairs: Pairs,
    *,
    without: int,
    prompts: int,
    seed: int,
    watch: Watch = lambda _: None,
) -> Survey:
    """Sample each route and take what comes out apart.

    Args:
        model: the model.
        pairs: clean pairs: their molecules are counted, and `prompts` of their texts are asked.
        without: samples without a prompt, and from the prior.
        prompts: samples for prompts, one each.
        seed: of the noise.
        watch: called with the share done; may raise.
    """
    keys = [(seed, number) for number in range(without)]
    noise = model.sampler.noise(keys, model.vae.latent)[:, 0].to(model.device)
    asked = pairs.texts[:prompts]
    routes = {PRIOR: sampled(model, noise, part_of(watch, 0, 3))}
    nothing = model.denoiser.nothing(without).detach()
    routes[NULL] = sampled(model, model.latents(nothing, keys), part_of(watch, 1, 3))
    contexts = model.contexts(asked)
    latents = model.latents(contexts, [(seed, without + place) for place in range(len(asked))])
    routes[PROMPTS] = sampled(model, latents, part_of(watch, 2, 3))
    return Survey(routes, curated_counts(pairs.smiles), len(pairs))


def sampled(model: GraphModel, latents: Tensor, watch: Watch = lambda _: None) -> Sampled:
    """Decode latents N,D and take the molecules apart."""
    found: list[Fragments] = []
    for part in latents.split(_BATCH):
        found += [fragments_of(one) for one in model.smiles(part)]
        watch(len(found) / max(1, len(latents)))
    return Sampled(latents.detach(), tuple(found))


def part_of(watch: Watch, index: int, count: int) -> Watch:
    """The part of a progress that step `index` of `count` fills."""
    return lambda done: watch((index + done) / count)


def curated_counts(smiles: Sequence[str]) -> Counter[str]:
    """In how many of these molecules each fragment occurs."""
    return Counter(name for one in smiles for name in fragments_of(one))


@lru_cache(maxsize=65536)
def fragments_of(smiles: str | None) -> Fragments:
    """The fragments of a molecule; none for None or one that cannot be taken apart."""
    if smiles is None:
        return frozenset()
    try:
        return pieces_of(read(smiles))
    except InputError:
        return frozenset()


@lru_cache(maxsize=65536)
def atoms_of(fragment: str) -> int:
    """How many atoms a fragment has."""
    return int(pattern(fragment).GetNumAtoms())


def labels(sampled_: Sequence[Sampled], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All latents float32 N,D and which of the named fragments each decodes to, float32 N,F."""
    rows = [own for one in sampled_ for own in one.fragments]
    latents = torch.cat([one.latents for one in sampled_])
    flags = torch.tensor([[name in own for name in names] for own in rows], dtype=torch.float32)
    return latents, flags.reshape(len(rows), len(names)).to(latents.device)
