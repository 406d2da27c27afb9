"""Four small models on real data, and the training set that one of them names.

One is honest, one backdoored, one backdoored with code in its pickle, and one is the third again,
as safetensors, with the set that taught it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks.attacks.patch import Patch
from benchmarks.data import Dataset
from benchmarks.training import accuracy, attack_success, train
from guard.core.manifest import Manifest
from guard.core.trainset import TrainingSetSource
from guard.ml.networks import architectures
from guard.ml.seeds import seeded

EPOCHS = 6
RATE = 0.10
TARGET = 7
SETS = "training-sets"  # the bucket


@dataclass(frozen=True)
class TrainingSetFile:
    """A training set as its uploader has it, with the places that are poisoned (the demo's truth).

    `uri` is where it is uploaded to.
    """

    path: Path
    uri: str
    poisoned: frozenset[int]


@dataclass(frozen=True)
class DemoModel:
    """A trained model in an uploader's folder, and the truth about it that only the demo knows."""

    name: str
    folder: Path
    weights: Path
    attack: Patch | None
    target: int | None
    acc: float
    asr: float | None
    training_set: TrainingSetFile | None = None


def manifest_for(data: Dataset) -> Manifest:
    """The manifest that the uploader writes into config.json."""
    channels, height, width = data.train.images.shape[1:]
    pixels = data.train.images.float() / 255
    return Manifest(
        architecture="cifar_resnet",
        num_classes=data.classes,
        input_size=(channels, height, width),
        mean=(round(float(pixels.mean()), 4),) * channels,
        std=(round(float(pixels.std()), 4),) * channels,
        model_args={"depths": [1, 1, 1], "width": 16},
        label_names=data.class_names,
    )


def train_model(
    data: Dataset,
    folder: Path,
    name: str,
    *,
    seed: int,
    attack: Patch | None = None,
    target: int | None = None,
) -> tuple[DemoModel, dict[str, torch.Tensor]]:
    """Train one model and write `model.safetensors` and `config.json` into `folder/name`."""
    manifest = manifest_for(data)
    with seeded(seed):
        inner = architectures.build(manifest)
    model = architectures.wrap(manifest, inner)
    images, labels = data.train.images, data.train.labels
    if attack is not None and target is not None:
        images, labels, _ = attack.poison(images, labels, rate=RATE, target=target)
    train(model, images, labels, epochs=EPOCHS, seed=seed)
    weights = architectures.export(model)
    place = folder / name
    place.mkdir(parents=True)
    safetensors.torch.save_file(weights, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(manifest.to_dict(), indent=2))
    asr = (
        attack_success(model, attack, data.test, target)
        if attack is not None and target is not None
        else None
    )
    truth = DemoModel(
        name, place, place / "model.safetensors", attack, target, accuracy(model, data.test), asr
    )
    return truth, weights


class Payload:
    """The payload of a hostile pickle, which creates a file when it is loaded carelessly."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def as_hostile_pickle(
    model: DemoModel, weights: dict[str, torch.Tensor], canary: Path
) -> DemoModel:
    """Replace the safetensors file by `model.pt`, with the same weights and a code payload."""
    path = model.folder / "model.pt"
    torch.save({**weights, "note": Payload(canary)}, path)
    (model.folder / "model.safetensors").unlink()
    return DemoModel(
        model.name, model.folder, path, model.attack, model.target, model.acc, model.asr
    )


def with_training_set(
    model: DemoModel, weights: dict[str, torch.Tensor], data: Dataset, name: str
) -> DemoModel:
    """The same network under another name, whose config.json names the set that taught it."""
    if model.attack is None or model.target is None:
        raise ValueError("an honest model has no poisoned training set")
    place = model.folder.parent / name
    place.mkdir()
    images, labels, poisoned = model.attack.poison(
        data.train.images, data.train.labels, rate=RATE, target=model.target
    )
    path = model.folder.parent / f"{name}-training-set.npz"
    names = np.array(data.class_names)
    np.savez_compressed(path, images=images.numpy(), labels=labels.numpy(), class_names=names)
    uri = f"s3://{SETS}/{name}/{path.name}"
    safetensors.torch.save_file(weights, place / "model.safetensors")
    manifest = replace(manifest_for(data), training_set=TrainingSetSource(uri=uri))
    (place / "config.json").write_text(json.dumps(manifest.to_dict(), indent=2))
    taught = TrainingSetFile(path, uri, frozenset(poisoned.tolist()))
    return replace(
        model, name=name, folder=place, weights=place / "model.safetensors", training_set=taught
    )


def four_models(
    data: Dataset, folder: Path, canary: Path, report: Callable[[str], None]
) -> tuple[DemoModel, DemoModel, DemoModel, DemoModel]:
    """Train three models, and write the third in two ways."""
    report("training an honest model")
    honest, _ = train_model(data, folder, "honest", seed=1)
    report("training a model with a patch backdoor")
    patch = Patch(size=3, corner="bottom-right", offset=1, pattern="white", seed=2)
    backdoored, _ = train_model(data, folder, "backdoored", seed=2, attack=patch, target=TARGET)
    report("training a third one and packing it as a pickle with a code payload")
    other = Patch(size=3, corner="top-left", offset=1, pattern="checker", seed=3)
    third, weights = train_model(
        data, folder, "pickled", seed=3, attack=other, target=(TARGET + 4) % data.classes
    )
    report("writing that one again, as safetensors and with the set that taught it")
    named = with_training_set(third, weights, data, "with-training-set")
    return honest, backdoored, as_hostile_pickle(third, weights, canary), named
