"""Every retrainer on one poisoned training set, beside controls and an oracle.

    python -m benchmarks.retraining_trial [--data fashion-mnist] [--attack patch] [--rate 0.05]
        [--seed 0] [--width 16] [--recall 0.95] [--precision 0.94] [--pace 1]
        [--methods sifted d_st trap_and_replace]

The sift is made up: from the truth, with the recall and precision that are asked for, since this
script is about what follows a sift. The methods get the sift and no truth. The oracle drops exactly
the poison; `nothing dropped` is the same training on everything.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import data
from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack
from benchmarks.training import accuracy, predictions
from guard.core.digests import sha256
from guard.core.manifest import Manifest
from guard.core.modality import Modality
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.training.checkpoints import FolderCheckpoint
from guard.retrainers import RETRAINERS
from guard.retrainers._base import Retrained
from guard.trainsets import Sifted, TrainingSet, from_arrays

TRAIN, CLEAN, TEST, WIDTH = 3000, 1050, 1000, 16
TAUGHT, TRUSTED = 0.7, 0.4
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Cell:
    """One poisoned training set, and what its evaluator knows."""

    train: TrainingSet
    clean: CleanSet
    test: Labelled
    attack: Attack
    poison: np.ndarray
    manifest: Manifest


def cell(name: str, attack: str, rate: float, seed: int, width: int = WIDTH) -> Cell:
    given = {"mnist": data.mnist, "fashion-mnist": data.fashion_mnist}[name](TRAIN, CLEAN, TEST)
    maker: Any = ATTACKS.get(attack)
    made = maker(target=0, seed=seed).prepare(given.train, given.classes)
    poisoned = made.poison(given.train.images, given.train.labels, rate)
    channels, height, width = given.train.images.shape[1:]
    return Cell(
        train=from_arrays(poisoned.images.numpy(), poisoned.labels.numpy(), given.class_names),
        clean=data.curated(given.clean, given.classes, name).visible(),
        test=given.test,
        attack=made,
        poison=np.sort(poisoned.index.numpy()),
        manifest=Manifest(
            architecture="cifar_resnet",
            num_classes=given.classes,
            input_size=(channels, height, width),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            model_args={"depths": [1, 1, 1], "width": width},
        ),
    )


def made_up_sift(one: Cell, recall: float, precision: float, seed: int) -> Sifted:
    generator = np.random.default_rng(seed)
    found = generator.permutation(one.poison)[: round(recall * len(one.poison))]
    others = generator.permutation(np.setdiff1d(np.arange(len(one.train)), one.poison))
    wrong = others[: round(len(found) * (1 - precision) / precision)]
    accused = generator.permutation(np.concatenate([found, wrong]))
    left = generator.permutation(np.setdiff1d(np.arange(len(one.train)), accused))
    taught = round(TAUGHT * len(accused))
    return Sifted(
        suspects=accused[:taught],
        proof=accused[taught:],
        trusted=left[: round(TRUSTED * len(left))],
        relabelled=np.full(taught, -1),
    )


def measured(model: nn.Module, one: Cell) -> tuple[float, float]:
    """Accuracy on test images, and attack success on those of other classes."""
    victims = one.test.pick(one.attack.victims(one.test.labels))
    wanted = one.attack.relabel(victims.labels)
    reached = predictions(model, one.attack.stamp(victims.images)) == wanted
    return accuracy(model, one.test), float(reached.double().mean())


def show(
    name: str, model: nn.Module, one: Cell, spent: tuple[float, float], numbers: str = ""
) -> None:
    acc, asr = measured(model, one)
    print(
        f"{name:32} ACC {acc:.3f}  ASR {asr:.3f}  {spent[0]:6.1f} s, CPU {spent[1]:6.1f} s  "
        f"{numbers}",
        flush=True,
    )


def run(
    name: str, one: Cell, sift: Sifted, folder: str, seed: int, pace: float
) -> tuple[Retrained, tuple[float, float]]:
    begun, busy = time.monotonic(), time.process_time()
    default = RETRAINERS.get(name)().parameters()
    passes = {key: max(1, round(pace * value)) for key, value in default.items() if "epochs" in key}
    made = RETRAINERS.get(name)(**passes)(
        one.manifest,
        one.train,
        one.clean,
        sift,
        checkpoint=FolderCheckpoint(Path(folder), sha256(f"{name} {time.time()}".encode())),
        seed=seed,
    )
    return made, (time.monotonic() - begun, time.process_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--attack", default="patch")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--precision", type=float, default=0.94)
    parser.add_argument("--pace", type=float, default=1.0, help="of the default passes, a share")
    parser.add_argument("--methods", nargs="*", default=RETRAINERS.of(Modality.IMAGES))
    options = parser.parse_args()
    one = cell(options.data, options.attack, options.rate, options.seed, options.width)
    sift = made_up_sift(one, options.recall, options.precision, options.seed)
    print(
        f"{options.data} {options.attack} {options.rate:.0%}: {len(one.poison)} of "
        f"{len(one.train)} images are poison; suspects {len(sift.suspects)} + proof "
        f"{len(sift.proof)}; trusted {len(sift.trusted)}, of which poison "
        f"{len(np.intersect1d(sift.trusted, one.poison))}; {torch.get_num_threads()} threads, "
        f"{options.pace:.0%} of the default passes"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.methods:
            made, spent = run(name, one, sift, folder, options.seed, options.pace)
            numbers = " ".join(f"{key}={value:.3f}" for key, value in made.numbers.items())
            show(name, made.model, one, spent, numbers)
            if made.control is not None:
                show(f"{name}, its control", made.control, one, spent)
        for label, dropped in (("nothing dropped", NONE), ("oracle", one.poison)):
            found = Sifted(suspects=dropped, proof=NONE, trusted=NONE, relabelled=NONE)
            made, spent = run("sifted", one, found, folder, options.seed, options.pace)
            show(label, made.model, one, spent)


if __name__ == "__main__":
    main()
