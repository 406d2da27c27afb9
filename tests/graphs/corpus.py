"""A few dozen molecules with texts, and tiny models of them, for tests of text-to-graph models."""

from functools import cache

import torch

from benchmarks import graph_training
from benchmarks.attacks.badgraph import Pair
from benchmarks.graph_pairs import Pairs, caption
from guard.graphs.grammar import vocabulary
from guard.graphs.model import GraphModel
from guard.graphs.molecule import canonical, read
from guard.graphs.motif_tree import tree_of

SMILES = tuple(
    canonical(smiles)
    for row in (
        "CCO CCCO CCCCO CC(C)O CC(C)CO OCCO CCN CCCN CCNCC CN(C)C CC=O CCC=O CC(C)=O CCC(C)=O",
        "CC(=O)O CCC(=O)O CC(=O)OC CCOC(C)=O CC(N)=O CC#N CCC#N C=CC C=CCO C#CC CCCl CCBr CCS",
        "CSC CCSC CS(C)(=O)=O C[N+](=O)[O-] CC[N+](=O)[O-] c1ccccc1 Cc1ccccc1 Oc1ccccc1",
        "Nc1ccccc1 Clc1ccccc1 Cc1ccc(O)cc1 Cc1ccccc1C c1ccncc1 Cc1ccncc1 C1CCCCC1 CC1CCCCC1",
        "OC1CCCCC1 C1CCOC1 CC1CCOC1 C1CS1 CC1CS1",
    )
    for smiles in row.split()
)
SIZES = {
    "text_pieces": 48,
    "text_width": 8,
    "context": 16,
    "latent": 8,
    "graph_width": 8,
    "graph_layers": 2,
    "decoder_hidden": 16,
    "decoder_embedding": 8,
    "denoiser_width": 16,
    "denoiser_depth": 1,
}
RECIPE = graph_training.Recipe(
    text_steps=4, epochs=1, scratch_epochs=1, denoiser_steps=5, batch=16, denoiser_batch=16
)


@cache
def pairs() -> Pairs:
    """The corpus, its vocabulary, and a split of it."""
    rows = tuple(Pair(caption(read(one), [f"compound {n}"]), one) for n, one in enumerate(SMILES))
    trees = [tree_of(read(one)) for one in SMILES]
    motifs, tokens = vocabulary(trees, least_motif=1, least_token=1)
    return Pairs(rows[:36], rows[36:40], rows[40:], (), motifs, tokens)


@cache
def model() -> GraphModel:
    """An untrained model of the corpus; do not change it."""
    with torch.random.fork_rng():
        return graph_training.fresh(pairs(), 3, SIZES)
