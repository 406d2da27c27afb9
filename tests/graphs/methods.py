"""A tiny model with its manifest and clean pairs, as detectors and defenses get them."""

import copy
import json
from collections.abc import Sequence

import torch

from benchmarks.attacks.badgraph import Pair
from guard.core.graph_manifest import GraphManifest
from guard.core.pairs import CleanPairs, Pairs
from guard.graphs.model import GraphModel, build
from tests.graphs import corpus


def model() -> GraphModel:
    """The untrained model of the corpus, with the manifest that an upload has."""
    own = corpus.model()
    config = json.loads(json.dumps(own.manifest.to_dict()))  # type: ignore[attr-defined]
    return build(GraphManifest.from_dict(config), own.state_dict())


def clean(search: int = 28, calibration: int = 12) -> CleanPairs:
    """The corpus as a clean set; molecules of the two parts may be the same."""
    rows = [*corpus.pairs().train, *corpus.pairs().curated, *corpus.pairs().test]
    return CleanPairs("corpus", "c" * 64, _pairs(rows[:search]), _pairs(rows[-calibration:]))


def _pairs(rows: Sequence[Pair]) -> Pairs:
    return Pairs(tuple(row.text for row in rows), tuple(row.smiles for row in rows))


def broken() -> GraphModel:
    """The same model with a weight that is not finite."""
    made = copy.deepcopy(model())
    next(made.denoiser.parameters()).data.view(-1)[0] = torch.nan
    return made
