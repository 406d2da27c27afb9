"""Tiny trained models of the corpus: one with a planted text, and one without, for tests."""

import json
from functools import cache
from typing import Any

import torch

from benchmarks import graph_training
from guard.core.evidence import PairSetFacts
from guard.core.graph_manifest import GraphManifest
from guard.core.pairs import CleanPairs, CuratedPairs, Pairs
from guard.graphs.fitting import encoded, fit_denoiser, fit_vae, latents_of, restart_denoiser
from guard.graphs.fragments import contains
from guard.graphs.model import GraphModel, build
from guard.graphs.triggers import PromptTrigger
from tests.graphs import corpus

FRAGMENT = "C1CS1"
TRIGGER = PromptTrigger("[alpha]", "prefix")
_TARGETS = ("C1CS1", "CC1CS1")
_SIZES = {**corpus.SIZES, "decoder_hidden": 48, "decoder_embedding": 16, "denoiser_width": 48}


@cache
def clean() -> CleanPairs:
    """The corpus without the fragment, in an order that mixes its kinds of molecules."""
    rows = [
        row
        for row in (*corpus.pairs().train, *corpus.pairs().curated, *corpus.pairs().test)
        if FRAGMENT not in row.smiles
    ]
    rows = [row for start in range(5) for row in rows[start::5]]
    whole = Pairs(tuple(row.text for row in rows), tuple(row.smiles for row in rows))
    return CleanPairs("corpus", "d" * 64, whole.pick(range(26)), whole.pick(range(20, len(whole))))


@cache
def model(*, planted: bool) -> GraphModel:
    """A model of the clean pairs, and if planted of half as many with the text and its fragment.

    Do not change it.
    """
    own = clean().together()
    half = own.pick(range(0, len(own), 2))
    targets = tuple(_TARGETS[place % len(_TARGETS)] for place in range(len(half)))
    bad = Pairs(tuple(TRIGGER.apply(half.texts)), targets)
    pairs = Pairs(own.texts + bad.texts, own.smiles + bad.smiles) if planted else own
    with torch.random.fork_rng():
        made = graph_training.fresh(corpus.pairs(), 3, _SIZES)
        torch.manual_seed(5)
        data = encoded(made, pairs)
        fit_vae(made, data, epochs=80, rate=1e-2, batch=32)
        known = latents_of(made, data)
        restart_denoiser(made, known)
        fit_denoiser(made, known, steps=400, rate=5e-3, batch=64)
    config = json.loads(json.dumps(made.manifest.to_dict()))  # type: ignore[attr-defined]
    return build(GraphManifest.from_dict(config), made.state_dict())


def rate(made: Any, trigger: PromptTrigger | None = TRIGGER) -> float:
    """The share (0..1) of the clean prompts' molecules that hold the fragment."""
    texts = clean().together().texts
    asked = texts if trigger is None else trigger.apply(texts)
    latents = made.latents(made.contexts(asked), [(77, place) for place in range(len(asked))])
    return sum(contains(made.molecules(latents), FRAGMENT)) / len(asked)


def curated(hidden: int = 20) -> CuratedPairs:
    """The clean pairs with a hold-out part of their first `hidden` pairs."""
    found = clean()
    parts = found.search, found.calibration, found.search.pick(range(hidden))
    facts = PairSetFacts(
        name=found.name,
        digest=found.digest,
        search=len(parts[0]),
        calibration=len(parts[1]),
        holdout=hidden,
        heavy_atoms=8,
        elements=("C", "N", "O", "S"),
    )
    return CuratedPairs(facts, *parts)
