"""Small things of text-to-graph models for tests: a manifest, pairs, a quality."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import safetensors.torch
from pyarrow import parquet

from guard.core.evidence import GraphQuality, PairSetFacts
from guard.core.graph_manifest import GraphManifest
from guard.graphs.model import GraphModel, build

CONFIG: dict[str, Any] = {
    "task": "text-to-graph",
    "architecture": "motif_latent_diffusion",
    "model_args": {
        "text_pieces": 24,
        "text_width": 8,
        "context": 8,
        "latent": 8,
        "graph_width": 8,
        "graph_layers": 1,
        "decoder_hidden": 8,
        "decoder_embedding": 8,
        "denoiser_width": 8,
        "denoiser_depth": 1,
        "times": 20,
        "atoms": 12,
    },
    "pieces": [" the", " mole", "a"],
    "motifs": ["C", "O", "C1CS1"],
    "tokens": [
        "<end>",
        "<up>",
        "@0",
        "@1",
        "@2",
        "^|C",
        "^|O",
        "^|C1CS1",
        "-|C|0",
        "-|O|0",
        "-|C1CS1|0",
    ],
    "sampler": {"steps": 4, "eta": 1.0, "guidance": 0.8, "schedule": "linear"},
}
ENDS = ("O", "N", "F", "Cl", "Br", "I")
QUALITY = GraphQuality(
    similarity=0.6,
    qualified=0.7,
    novelty=0.5,
    diversity=0.4,
    uniqueness=0.9,
    ring_systems={"c1ccccc1": 0.1},
    prompts=40,
    molecules=80,
)
FACTS = PairSetFacts(
    name="pairs",
    digest="c" * 64,
    search=200,
    calibration=80,
    holdout=120,
    heavy_atoms=10,
    elements=("C", "O"),
)


def manifest(**changes: Any) -> GraphManifest:
    return GraphManifest.from_dict({**CONFIG, **changes})


def alkanes(count: int = 40) -> tuple[list[str], list[str]]:
    """Texts and SMILES of `count` distinct molecules: chains of carbon with an end of their own."""
    smiles = ["C" * (1 + place // len(ENDS)) + ENDS[place % len(ENDS)] for place in range(count)]
    texts = [f"The molecule is number {place}." for place in range(count)]
    return texts, smiles


def write_pairs(path: Path, texts: list[Any], smiles: list[Any]) -> Path:
    parquet.write_table(pa.table({"text": texts, "smiles": smiles}), path)
    return path


@cache
def model() -> GraphModel:
    """An untrained model; do not change it."""
    return build(manifest())


def write_model(folder: Path, **changes: Any) -> Path:
    """The untrained model as an upload, with a changed `config.json` if asked for."""
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(model().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder
