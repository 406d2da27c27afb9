"""One trained cell on disk: the model, the set that taught it, clean images, and the truth.

Layout: model.safetensors, config.json, train.npz, clean.npz, and the sidecar truth.npz with
truth.json. A sift is given what `opened` reads; `truth` is for the evaluator alone.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks.data import Dataset
from benchmarks.sift.cell import Cell, make
from guard.core.manifest import Manifest
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.trainsets import TrainingSet, from_arrays


@dataclass(frozen=True)
class Upload:
    """What a sift is given: the model, the set that it names, and the defender's clean images."""

    model: ImageModel
    train: TrainingSet
    clean: Labelled


@dataclass(frozen=True)
class Truth:
    """What only the evaluator reads: `poisoned` bool N, `sources` int64 N the true classes.

    `facts` has acc, asr and asr_planted (None of an honest set), all 0..1, and the processor
    seconds of the training.
    """

    poisoned: np.ndarray
    sources: np.ndarray
    facts: dict[str, Any]


def build(cell: Cell, data: Dataset, place: Path) -> None:
    """Poison, train, and write a whole folder or none."""
    part = place.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    begun = time.process_time()
    made = make(cell, data)
    seconds = time.process_time() - begun
    safetensors.torch.save_file(architectures.export(made.model), part / "model.safetensors")
    (part / "config.json").write_text(json.dumps(made.model.manifest.to_dict()) + "\n")
    images = made.train.rows(np.arange(len(made.train)))
    names = np.array(data.class_names)
    np.savez_compressed(part / "train.npz", images=images, labels=made.train.labels, names=names)
    clean = data.clean
    np.savez_compressed(
        part / "clean.npz", images=clean.images.numpy(), labels=clean.labels.numpy()
    )
    np.savez_compressed(part / "truth.npz", poisoned=made.poisoned, sources=made.sources)
    facts = {
        "acc": made.acc,
        "asr": made.asr,
        "asr_planted": made.asr_planted,
        "train_seconds": seconds,
        "cell": asdict(cell),
    }
    (part / "truth.json").write_text(json.dumps(facts, allow_nan=False) + "\n")
    part.rename(place)


def opened(place: Path) -> Upload:
    """The model, its set and the clean images; nothing of the truth."""
    manifest = Manifest.parse((place / "config.json").read_bytes())
    model = architectures.load(manifest, safetensors.torch.load_file(place / "model.safetensors"))
    with np.load(place / "train.npz") as arrays:
        names = tuple(str(name) for name in arrays["names"])
        train = from_arrays(arrays["images"], arrays["labels"], names, uri=place.name)
    with np.load(place / "clean.npz") as arrays:
        clean = Labelled(*(torch.from_numpy(arrays[name]) for name in ("images", "labels")))
    return Upload(model, train, clean)


def truth(place: Path) -> Truth:
    """The sidecar."""
    with np.load(place / "truth.npz") as arrays:
        found = arrays["poisoned"], arrays["sources"]
    return Truth(*found, json.loads((place / "truth.json").read_text()))
