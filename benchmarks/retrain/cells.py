"""A cell of the benchmark of repairs and retrainers: a poisoned set, the upload, and its sift."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks import data
from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack
from benchmarks.fitting import Training, fit
from benchmarks.sift.cell import ATTACK_PARAMETERS
from benchmarks.training import predictions
from guard.core.manifest import Manifest
from guard.core.progress import Progress, silent
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.seeds import seeded
from guard.policy import TrainingSetRule
from guard.trainsets import Sifted, TrainingSet, from_arrays
from guard.vetting.accused import AccusedImages, gathered, packed, unpacked
from guard.vetting.sift import DEFAULT_METHODS, Sift, sift

TRAIN, CLEAN, TEST = 3000, 1000, 2000
TARGET = 0
SIFTERS = DEFAULT_METHODS
SKIP = 2000  # images of each class that development had
#: Architecture and its arguments, by the name in a plan.
NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "resnet": ("cifar_resnet", {"depths": [1, 1, 1], "width": 8}),
    "preact": ("preact_resnet18", {"width": 8}),
    "timm": (
        "resnet10t",
        {
            "channels": [12, 24, 48, 96],
            "stem_width": 12,
            "replace_stem_pool": False,
            "base_width": 64,
        },
    ),
}
#: Four attacks; the settings are gone through in this order, each with all of them.
ATTACKED = (("patch", 0.05), ("blended", 0.05), ("sig", 0.05), ("patch", 0.1))
EXAM, DEVELOPMENT = "exam", "development"
SETTINGS: Mapping[str, tuple[tuple[str, str, int], ...]] = {
    EXAM: (
        ("fashion-mnist", "resnet", 101),
        ("mnist", "preact", 102),
        ("fashion-mnist", "timm", 103),
    ),
    DEVELOPMENT: (
        ("fashion-mnist", "resnet", 1),
        ("fashion-mnist", "preact", 2),
        ("mnist", "preact", 3),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is poisoned, which network learns it, and with which seed."""

    attack: str
    rate: float
    data: str = "fashion-mnist"
    network: str = "resnet"
    seed: int = 0
    part: str = DEVELOPMENT
    train: int = TRAIN
    clean: int = CLEAN
    test: int = TEST
    epochs: int = 15

    @property
    def name(self) -> str:
        return f"{self.data}-{self.network}-{self.attack}-{100 * self.rate:g}pc-s{self.seed}"


def plan(part: str = EXAM) -> list[Cell]:
    """The cells of one part, each setting with all attacks before the next one."""
    return [
        Cell(attack=attack, rate=rate, data=source, network=network, seed=seed, part=part)
        for source, network, seed in SETTINGS[part]
        for attack, rate in ATTACKED
    ]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A cell's data and truth; `poison` are places int64 in the training set."""

    cell: Cell
    train: TrainingSet
    curated: CuratedSet
    test: Labelled
    attack: Attack
    poison: np.ndarray
    manifest: Manifest


def ground(cell: Cell) -> Ground:
    """Split the data and poison the training set; nothing is trained."""
    given = _images(cell)
    made = ATTACKS.get(cell.attack)(seed=cell.seed, **ATTACK_PARAMETERS.get(cell.attack, {}))
    attack = replace(made, target=TARGET).prepare(given.train, given.classes)
    poisoned = attack.poison(given.train.images, given.train.labels, cell.rate)
    pixels = given.train.images.float().div(255).transpose(0, 1).flatten(1)
    architecture, arguments = NETWORKS[cell.network]
    channels, height, width = given.train.images.shape[1:]
    return Ground(
        cell=cell,
        train=from_arrays(
            poisoned.images.numpy(), poisoned.labels.numpy(), given.class_names, uri=cell.name
        ),
        curated=data.curated(given.clean, given.classes, given.name, cell.seed),
        test=given.test,
        attack=attack,
        poison=np.sort(poisoned.index.numpy()),
        manifest=Manifest(
            architecture=architecture,
            num_classes=given.classes,
            input_size=(channels, height, width),
            mean=tuple(round(float(value), 4) for value in pixels.mean(1)),
            std=tuple(round(float(value), 4) for value in pixels.std(1)),
            model_args=dict(arguments),
        ),
    )


def _images(cell: Cell) -> data.Dataset:
    if cell.data == "mnist":
        given = data.mnist(cell.train, cell.clean, min(cell.test, 1000))
        return given if cell.part == EXAM else _untested(given)
    skip = SKIP if cell.part == EXAM else 0
    return data.fashion_mnist(cell.train, cell.clean, cell.test, skip=skip)


def _untested(given: data.Dataset) -> data.Dataset:
    """The same without its test images: a third of the training images takes their place.

    MNIST has too few images for two parts. So development has training images of the exam, and
    none that a number of the exam is measured on.
    """
    order = torch.randperm(
        len(given.train), generator=torch.Generator().manual_seed(data.SPLIT_SEED)
    )
    cut = 2 * len(order) // 3
    return replace(given, train=given.train.pick(order[:cut]), test=given.train.pick(order[cut:]))


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A cell's trained network and what the guard's sift found in its training set.

    `accused` is None where the sift accused too few images for a repair. `row` is JSON-ready.
    """

    ground: Ground
    model: ImageModel
    sifted: Sifted
    accused: AccusedImages | None
    row: Mapping[str, Any]


_WEIGHTS, _PLACES, _ACCUSED, _ROW = "upload.safetensors", "sift.npz", "accused.npz", "upload.json"


def upload(of: Ground, folder: Path, wait: Progress = silent) -> Upload:
    """The upload and its sift, read from the folder or made and kept there."""
    with seeded(of.cell.seed):
        model = architectures.wrap(of.manifest, architectures.build(of.manifest))
    if not (folder / _ROW).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(of, model, folder, wait)
    model.load_state_dict(safetensors.torch.load_file(folder / _WEIGHTS))
    with np.load(folder / _PLACES, allow_pickle=False) as stored:
        places = Sifted(**{name: stored[name] for name in stored.files})
    accused = folder / _ACCUSED
    return Upload(
        ground=of,
        model=model.eval(),
        sifted=places,
        accused=unpacked(accused.read_bytes()) if accused.exists() else None,
        row=json.loads((folder / _ROW).read_text()),
    )


def _make(of: Ground, model: ImageModel, folder: Path, wait: Progress) -> None:
    busy = time.process_time()
    fit(
        model,
        torch.from_numpy(of.train.rows(np.arange(len(of.train)))),
        torch.from_numpy(of.train.labels),
        Training(epochs=of.cell.epochs),
        seed=of.cell.seed,
        after_epoch=lambda epoch: wait(epoch / of.cell.epochs, ""),
    )
    trained = time.process_time() - busy
    busy = time.process_time()
    found = sift(model, of.train, of.curated, SIFTERS, seed=of.cell.seed, progress=wait)
    sifting = time.process_time() - busy
    accused = gathered(TrainingSetRule(), of.train, found.report.suspects, found.trusted.tolist())
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / _WEIGHTS)
    np.savez(folder / _PLACES, **asdict(found.sifted()))
    if accused is not None:
        (folder / _ACCUSED).write_bytes(packed(accused))
    row = {
        "name": of.cell.name,
        "cell": asdict(of.cell),
        "poison": len(of.poison),
        "before": measured(model, of, accused),
        "train_seconds": trained,
        "sift_seconds": sifting,
        **_against_truth(of, found),
    }
    write(folder / _ROW, row)


def _against_truth(of: Ground, found: Sift) -> dict[str, Any]:
    """How good the sift was, which no method gets to see."""
    accused = np.array([one.index for one in found.report.suspects], np.int64)
    hits = len(np.intersect1d(accused, of.poison))
    return {
        "verdict": str(found.report.verdict),
        "accused": len(accused),
        "precision": hits / len(accused) if len(accused) else None,
        "recall": hits / len(of.poison),
        "trusted": len(found.trusted),
        "trusted_poison": len(np.intersect1d(found.trusted, of.poison)),
    }


def measured(
    model: torch.nn.Module, of: Ground, accused: AccusedImages | None
) -> dict[str, dict[str, int]]:
    """ACC and ASR on test images, and how many proof images still go to their labels: k of n."""
    victims = of.test.pick(of.attack.victims(of.test.labels))
    wanted = of.attack.relabel(victims.labels)
    found = {
        "acc": _share(predictions(model, of.test.images) == of.test.labels),
        "asr": _share(predictions(model, of.attack.stamp(victims.images)) == wanted),
    }
    if accused is not None and len(accused.proof.fdr):
        proof = accused.proof.images
        found["proof"] = _share(predictions(model, proof.images) == proof.labels)
    return found


def _share(flags: torch.Tensor) -> dict[str, int]:
    return {"k": int(flags.sum()), "n": len(flags)}


def write(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, allow_nan=False) + "\n")
    part.rename(path)
