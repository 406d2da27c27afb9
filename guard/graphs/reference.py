"""Clean references: what a model does that the guard itself trained on the clean pairs alone.

A decoder has artefacts: fragments that it writes far more often than any training set holds them.
A model that the guard trains on the clean pairs has such artefacts too, and no backdoor. The same
holds for texts: names of molecules ask for fragments in more ways than any list knows, and a text
that plants a fragment in a model of clean pairs asks for it.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from guard.core.digests import json_digest
from guard.core.pairs import CleanPairs, Pairs
from guard.core.progress import span
from guard.graphs import prepared
from guard.graphs.fitting import encoded, fit_denoiser, fit_vae, latents_of, restart_denoiser
from guard.graphs.grammar import vocabulary
from guard.graphs.model import GraphConfig, GraphModel, build
from guard.graphs.molecule import read
from guard.graphs.motif_tree import tree_of
from guard.graphs.survey import NULL, PRIOR, sampled
from guard.ml.seeds import seeded

VERSION = 1  # raised with any change of a result, since results are cached
SEED = 0  # not the scan's: the reference belongs to the pair set
_SIZES = {"text_pieces": 8, "text_width": 4, "context": 8}  # no text is used
_RATE = 2e-3  # of trainings
_LEAST = 2  # times that a motif or a token must occur
Watch = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class ReferenceEffort:
    """Rounds over the pairs, steps of the denoiser, samples of each route."""

    epochs: int
    steps: int
    samples: int


def reference(
    clean: CleanPairs, effort: ReferenceEffort, device: torch.device, watch: Watch = lambda _: None
) -> dict[str, Counter[str]]:
    """In how many of `effort.samples` samples of each route the reference has each fragment.

    It is trained once a pair set; the same pairs give the same counts, whatever the caller's random
    state.
    """
    own = [
        "reference",
        VERSION,
        clean.digest,
        effort.epochs,
        effort.steps,
        effort.samples,
        str(device),
    ]
    key = json_digest(own)
    if prepared.kept(key) is None:
        with seeded(SEED):
            model = trained(clean.together(), effort, device, watch)
            counts = {
                route: dict(sampled(model, latents).counts())
                for route, latents in unprompted(model, effort.samples, SEED).items()
            }
        prepared.keep(key, counts)
    watch(1.0)
    return {route: Counter(counts) for route, counts in prepared.kept(key).items()}


def unprompted(model: GraphModel, count: int, seed: int) -> dict[str, torch.Tensor]:
    """`count` latents N,D from the prior and as many sampled without a prompt."""
    keys = [(seed, number) for number in range(count)]
    noise = model.sampler.noise(keys, model.vae.latent)[:, 0].to(model.device)
    return {PRIOR: noise, NULL: model.latents(model.denoiser.nothing(count).detach(), keys)}


def trained(
    pairs: Pairs, effort: ReferenceEffort, device: torch.device, watch: Watch = lambda _: None
) -> GraphModel:
    """A model of these molecules, with a grammar of its own and no use of their texts."""
    trees = [tree_of(read(one)) for one in pairs.smiles]
    motifs, tokens = vocabulary(trees, least_motif=_LEAST, least_token=_LEAST)
    config = GraphConfig(model_args=_SIZES, pieces=(" a",), motifs=motifs, tokens=tokens)
    model = build(config).to(device)
    data = encoded(model, pairs)
    fit_vae(model, data, epochs=effort.epochs, rate=_RATE, watch=_half(watch, 0.0))
    known = latents_of(model, data)
    known = known._replace(contexts=torch.zeros_like(known.contexts))
    restart_denoiser(model, known)
    fit_denoiser(model, known, steps=effort.steps, rate=_RATE, watch=_half(watch, 0.5))
    return model.eval()


def taught_texts(
    model: GraphModel, pairs: Pairs, *, steps: int, watch: Watch = lambda _: None
) -> GraphModel:
    """The model with a fresh denoiser that has seen these pairs alone; the model stays as it is.

    Text tower and autoencoder are the model's own: what a text means to the copy is what captions
    of clean molecules have taught its denoiser. Draws from torch's global generator.
    """
    clean = copy.deepcopy(model, {id(model.grammar): model.grammar})
    clean.requires_grad_()
    known = latents_of(clean, encoded(clean, pairs))
    restart_denoiser(clean, known)
    fit_denoiser(clean, known, steps=steps, rate=_RATE, watch=watch)
    return clean.eval()


def _half(watch: Watch, start: float) -> Watch:
    return span(lambda done, _="": watch(done), start, start + 0.5, "")
