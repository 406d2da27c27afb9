"""One cell: a training set with known poison, the model it teaches, its sift, and the comparison.

Nothing but `evaluate` reads which images are poisoned.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack, eight_bits
from benchmarks.data import Dataset, curated, fashion_mnist, mnist
from benchmarks.fitting import Training, fit
from benchmarks.sift.sets import HONEST, chosen_mask
from benchmarks.training import accuracy, predictions
from benchmarks.zoo.make import measure
from guard.core.manifest import Manifest
from guard.core.modality import Modality
from guard.core.sift import SiftedClass, SiftVerdict
from guard.core.trainset import Suspect
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.networks import architectures
from guard.ml.networks.architectures import ImageModel
from guard.ml.seeds import seeded
from guard.sifters import SIFTERS
from guard.sifters.fct import Fct
from guard.trainsets import TrainingSet, from_arrays
from guard.vetting import carried_rates
from guard.vetting.sift import DEFAULT_METHODS, JOINED, Sift, replayed, sift

SETS = {"fashion-mnist": fashion_mnist, "mnist": mnist}
#: One attack of each kind at the strength of its paper, as far as 28 pixels allow it.
ATTACK_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "patch": {"size": 3},
    "blended": {"alpha": 0.2},
    "sig": {"delta": 40.0},
    "adaptive_blend": {"alpha": 0.15, "alpha_test": 0.2},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured; `attack` None is an honest set of the kind `honest`.

    `clean` counts the clean images of all classes and parts, of which methods see seven tenths.
    """

    attack: str | None = None
    rate: float = 0.05
    parameters: Mapping[str, Any] | None = None
    target: int | None = 0
    honest: str = "plain"
    data: str = "fashion-mnist"
    train: int = 3000
    clean: int = 1000
    test: int = 2000
    architecture: str = "cifar_resnet"
    model_args: Mapping[str, Any] = field(
        default_factory=lambda: {"depths": [1, 1, 1], "width": 16}
    )
    training: Training = field(default_factory=lambda: Training(epochs=15))
    seed: int = 0

    @property
    def name(self) -> str:
        kind = f"honest {self.honest}" if self.attack is None else f"{self.attack} {self.rate:.0%}"
        return f"{self.architecture} {kind} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A cell's set, model and truth: `poisoned` is bool N, `sources` int64 N the true classes.

    `asr` is that of the trigger at test time, `asr_planted` that of the trigger as the training
    images have it: SIG and Adaptive-Blend stamp more strongly at test time.
    """

    cell: Cell
    train: TrainingSet
    model: ImageModel
    curated: CuratedSet
    poisoned: np.ndarray
    sources: np.ndarray
    acc: float
    asr: float | None
    asr_planted: float | None = None


def make(cell: Cell, data: Dataset | None = None) -> Made:
    """Poison the data (by default those that the cell names) and train the model on them."""
    data = data or SETS[cell.data](cell.train, cell.clean, cell.test)
    honest = HONEST[cell.honest](data.train, data.classes, cell.seed)
    images, labels = honest.images, honest.labels
    index, sources = torch.empty(0, dtype=torch.int64), labels
    model = _fresh(cell, data)
    attack = _attack(cell, data)
    if attack is not None:
        images, labels, index = attack.poison(images, labels, cell.rate)
    fit(model, images, labels, cell.training, seed=cell.seed)
    return Made(
        cell=cell,
        train=from_arrays(images.numpy(), labels.numpy(), data.class_names, uri=cell.name),
        model=model.eval(),
        curated=curated(data.clean, data.classes, data.name, cell.seed),
        poisoned=chosen_mask(len(labels), index).numpy(),
        sources=sources.numpy(),
        acc=accuracy(model, data.test),
        asr=None if attack is None else measure(model, attack, data.test)[0],
        asr_planted=None if attack is None else as_planted(model, attack, data.test),
    )


def as_planted(model: nn.Module, attack: Attack, test: Labelled) -> float:
    """The ASR on test images of the trigger as the training images have it."""
    victims = test.pick(attack.victims(test.labels))
    if attack.clean_label:  # its poison is made of the target's own images
        images, labels = eight_bits(victims.images, attack.plant), victims.labels
    else:
        made = attack.poison(victims.images, victims.labels, 1.0)
        images, labels = made.images[made.index], victims.labels[made.index]
    return float((predictions(model, images) == attack.relabel(labels)).double().mean())


def _fresh(cell: Cell, data: Dataset) -> ImageModel:
    channels, height, width = data.train.images.shape[1:]
    pixels = data.train.images.float().div(255).transpose(0, 1).flatten(1)
    manifest = Manifest(
        architecture=cell.architecture,
        num_classes=data.classes,
        input_size=(channels, height, width),
        mean=tuple(round(float(value), 4) for value in pixels.mean(1)),
        std=tuple(round(float(value), 4) for value in pixels.std(1)),
        model_args=dict(cell.model_args),
    )
    with seeded(cell.seed):
        return architectures.wrap(manifest, architectures.build(manifest))


def _attack(cell: Cell, data: Dataset) -> Attack | None:
    if cell.attack is None:
        return None
    given = ATTACK_PARAMETERS.get(cell.attack, {}) if cell.parameters is None else cell.parameters
    made = ATTACKS.get(cell.attack)(seed=cell.seed, **given)
    if made.target is not None:
        made = replace(made, target=cell.target)

    def victim() -> nn.Module:
        return _fresh(replace(cell, seed=cell.seed + 1), data)

    return made.prepare(data.train, data.classes, victim)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance (0..1) that a positive scores more than another; None without either."""
    high, low = scores[positive], np.sort(scores[~positive])
    if not len(high) or not len(low):
        return None
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / 2 / len(low))


def at_count(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The precision (0..1) of as many of the highest scores as there are positives."""
    count = int(positive.sum())
    if not count:
        return None
    return float(positive[np.argsort(-scores, kind="stable")[:count]].mean())


def evaluate(made: Made, found: Sift) -> dict[str, Any]:
    """The sift against the truth; of an honest set only whom it accuses."""
    report, bad = found.report, made.poisoned
    accused = chosen_mask(
        len(bad), torch.tensor([one.index for one in report.suspects], dtype=torch.int64)
    ).numpy()
    standing = [one for one in report.classes if one.stands_out]
    inside = np.isin(made.train.labels, [one.label for one in standing])
    replay = replayed(made.model, made.train, report)
    shown = carried_rates.rates(made.model, made.train, report, made.curated)
    return {
        "cell": {**asdict(made.cell), "name": made.cell.name},
        "acc": made.acc,
        "asr": made.asr,
        "poison": int(bad.sum()),
        "verdict": str(report.verdict),
        "reasons": list(report.reasons),
        "remarks": list(report.remarks),
        "methods": {
            name: {"auroc": auroc(scores, bad), "precision_at_count": at_count(scores, bad)}
            for name, scores in found.scores.items()
            if name != JOINED
        },
        "quantiles": {one.method: dict(one.quantiles) for one in report.methods},
        "accuracy_on_set": report.accuracy,
        "clean_accuracy": report.clean_accuracy,
        "set": report.training_set.digest,
        "least_p": report.least_p,
        "joined_auroc": auroc(found.scores[JOINED], bad) if JOINED in found.scores else None,
        "flagged": int(accused.sum()),
        "precision": float(bad[accused].mean()) if accused.any() else None,
        "recall": float(accused[bad].mean()) if bad.any() else None,
        "fdr": _levels(found.rates, inside, bad),
        "map": None if report.label_map is None else list(report.label_map.mapping),
        "classes": [_class(one) for one in standing],
        "asr_planted": made.asr_planted,
        "carried": _carried(shown, report.suspects),
        "replay": replay and replay.estimate,
        "replay_n": replay and replay.trials,
        "seconds": {one.method: one.seconds for one in report.methods},
        "failed": {one.method: one.failed for one in report.methods if one.failed},
    }


def _levels(rates: np.ndarray, inside: np.ndarray, bad: np.ndarray) -> dict[str, Any]:
    """The images of classes that stand out that each level accuses, and the share of clean ones."""
    levels = {}
    for level in (0.05, 0.1, 0.2, 0.3):
        chosen = inside & (rates <= level) if len(rates) else inside & False
        levels[str(level)] = {
            "n": int(chosen.sum()),
            "true_fdr": float((~bad[chosen]).mean()) if chosen.any() else None,
        }
    return levels


def _class(one: SiftedClass) -> dict[str, Any]:
    return {
        "label": one.label,
        "accused": one.accused,
        "resolved": one.resolved,
        "poisoning": one.poisoning and str(one.poisoning),
        "obedience": one.obedience and one.obedience.estimate,
        "source_share": one.source_share,
        "family": one.trigger and one.trigger.family,
        "trigger_asr": one.trigger and one.trigger.asr.estimate,
        "siblings": one.trigger and one.trigger.siblings,
    }


def _carried(
    shown: Sequence[carried_rates.CarriedRates], suspects: Sequence[Suspect]
) -> dict[str, Any] | None:
    """The rates of the label map, or of the class with the most suspects; None without any."""
    if not shown:
        return None
    counts = Counter(str(one.label) for one in suspects)
    most = max(shown, key=lambda one: counts.get(str(one.target), len(suspects)))
    return {
        "family": most.carried.family,
        "rate": most.carried.estimate,
        "stronger": most.stronger.estimate,
    }


def run(cell: Cell, methods: Mapping[str, Mapping[str, Any]] = DEFAULT_METHODS) -> dict[str, Any]:
    """Make the cell, sift it and evaluate the sift."""
    begun = time.perf_counter()
    made = make(cell)
    trained = time.perf_counter() - begun
    begun = time.perf_counter()
    with network_time() as spent:
        found = sift(made.model, made.train, made.curated, methods, seed=cell.seed)
    seconds = time.perf_counter() - begun
    row = evaluate(made, found)
    fct = found.scores.get("fct")
    if fct is not None:
        split = Fct().split(fct)
        row["fct_published"] = {
            "gamma": [split.gamma_clean, split.gamma_poisoned],
            "poisoned_precision": float(made.poisoned[split.poisoned].mean()),
            "clean_poison": float(made.poisoned[split.clean].mean()),
        }
    return {
        **row,
        "train_seconds": trained,
        "sift_seconds": seconds,
        "network_share": spent[0] / seconds,
    }


@contextmanager
def network_time() -> Iterator[list[float]]:
    """Seconds inside the block that networks compute: outermost forward passes and backward ones.

    The list has one number, which is right once the block has ended.
    """
    spent, depth, begun = [0.0], [0], [0.0]

    def enter(_module: nn.Module, _args: object) -> None:
        if depth[0] == 0:
            begun[0] = time.perf_counter()
        depth[0] += 1

    def leave(_module: nn.Module, _args: object, _output: object) -> None:
        depth[0] -= 1
        if depth[0] == 0:
            spent[0] += time.perf_counter() - begun[0]

    backward = torch.Tensor.backward

    def timed(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        backward(tensor, *args, **kwargs)  # type: ignore[no-untyped-call]
        spent[0] += time.perf_counter() - start

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    torch.Tensor.backward = timed  # type: ignore[assignment,method-assign]
    try:
        yield spent
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()


def line(row: Mapping[str, Any]) -> str:
    """A row as one line of text."""

    def short(value: Any) -> str:
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    methods = " ".join(
        f"{name}={short(own['auroc'])}/{short(own['precision_at_count'])}"
        for name, own in row["methods"].items()
    )
    fdr = " ".join(f"{level}:{short(one['true_fdr'])}" for level, one in row["fdr"].items())
    return (
        f"{row['cell']['name']}: acc {short(row['acc'])} asr {short(row['asr'])} "
        f"n {row['poison']} | {methods} joined={short(row['joined_auroc'])} | {row['verdict']} "
        f"flagged {row['flagged']} precision {short(row['precision'])} "
        f"recall {short(row['recall'])} | true FDR at {fdr} | replay {short(row['replay'])} "
        f"| {row['sift_seconds']:.0f} s, network {row['network_share']:.0%} | {row['classes']}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="+", help="ATTACK or honest:KIND")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all-sifters", action="store_true")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--json")
    given = parser.parse_args(arguments)
    methods: dict[str, Mapping[str, Any]] = dict(DEFAULT_METHODS)
    if given.all_sifters:
        methods |= {name: {} for name in SIFTERS.of(Modality.IMAGES) if name not in methods}
    rows = []
    for name in given.cells:
        attack, _, kind = name.partition(":")
        cell = Cell(
            attack=None if attack == "honest" else attack,
            honest=kind or "plain",
            rate=given.rate,
            seed=given.seed,
            data=given.data,
        )
        rows.append(run(cell, methods))
        print(line(rows[-1]), flush=True)
        if given.json:
            Path(given.json).write_text(json.dumps(rows, indent=1) + "\n")
    accused = sum(row["verdict"] != SiftVerdict.NOTHING for row in rows if not row["poison"])
    print(f"{accused} honest sets accused")


if __name__ == "__main__":
    main()
