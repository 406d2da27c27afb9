"""How often patch inversion is right: honest and backdoored small models, each scanned once with the defaults.

    python -m benchmarks.bench_detection [--only PART_OF_A_NAME] [--threads 1] [--rows FILE]

`--rows` keeps what is done, so that a run that was ended can go on.

Models differ in data, architecture, seed, length of training, and trigger; none was used to choose a parameter with
this list's seeds. Hold-out ASR is of the recovered trigger, `asr` of the attacker's own.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.attacks.patch import Patch
from benchmarks.data import Dataset, curated, load
from benchmarks.record import write
from benchmarks.training import accuracy, attack_success, train
from guard.core.evidence import Finding
from guard.detectors.patch_inversion import PatchInversion
from guard.ml import measure
from guard.ml.cleanset import CuratedSet
from guard.ml.nets.cifar_resnet import CifarResnet
from guard.ml.seeds import seeded

SCAN_SEED = 7


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def three_convolutions(width: int = 16) -> nn.Module:
    """Underfits: three convolutions and a mean."""
    layers = [block(1, width, 1), block(width, 2 * width, 2), block(2 * width, 4 * width, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def lenet(width: int = 16) -> nn.Module:
    """Large filters, max-pooling, no batch norm, and a dense layer that sees positions."""
    return nn.Sequential(
        nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet": partial(CifarResnet, 10, 1, (1, 1, 1), 16), "narrow-resnet": partial(CifarResnet, 10, 1, (2, 2, 2), 8),
    "lenet": lenet, "three-convolutions": three_convolutions,
}


@dataclass(frozen=True)
class Case:
    """One model: honest without attacks; several attacks are several triggers with their targets."""

    name: str
    net: str
    epochs: int
    data: str = "mnist"
    rate: float = 0.1
    attacks: dict[int, Patch] = field(default_factory=dict)


CASES = (
    *(Case(f"honest-resnet-{epochs}", "resnet", epochs) for epochs in (1, 3, 6, 10)),
    *(Case(f"honest-narrow-{epochs}", "narrow-resnet", epochs) for epochs in (2, 5)),
    *(Case(f"honest-lenet-{epochs}", "lenet", epochs) for epochs in (2, 6, 12)),
    *(Case(f"honest-three-{epochs}", "three-convolutions", epochs) for epochs in (4, 10)),
    Case("honest-fashion-resnet", "resnet", 3, "fashion-mnist"),
    Case("honest-fashion-lenet", "lenet", 4, "fashion-mnist"),
    Case("white3-resnet", "resnet", 6, attacks={7: Patch(seed=1)}),
    Case("white3-resnet-5%", "resnet", 6, rate=0.05, attacks={3: Patch(corner="top-left", seed=2)}),
    Case("white2-resnet", "resnet", 6, attacks={5: Patch(size=2, seed=3)}),
    Case("grey3-resnet", "resnet", 6, attacks={1: Patch(pattern="grey", seed=4)}),
    Case("random5-resnet", "resnet", 6, attacks={2: Patch(size=5, pattern="random", seed=5)}),
    Case("checker4-narrow", "narrow-resnet", 6, attacks={9: Patch(size=4, pattern="checker", seed=6)}),
    Case("two-targets-resnet", "resnet", 6, rate=0.05,
         attacks={4: Patch(corner="bottom-left", seed=7), 8: Patch(corner="top-right", seed=8)}),
    Case("white3-lenet", "lenet", 8, attacks={0: Patch(seed=9)}),
    Case("random3-lenet-5%", "lenet", 8, rate=0.05, attacks={6: Patch(pattern="random", seed=10)}),
    Case("white3-three", "three-convolutions", 8, attacks={6: Patch(seed=11)}),
    Case("white3-fashion-resnet", "resnet", 3, "fashion-mnist", attacks={0: Patch(seed=12)}),
    Case("checker3-fashion-lenet", "lenet", 4, "fashion-mnist", attacks={8: Patch(pattern="checker", seed=13)}),
)


def trained(case: Case, seed: int, data: Dataset) -> nn.Module:
    images, labels = data.train.images, data.train.labels
    for target, patch in case.attacks.items():
        images, labels, _ = patch.poison(images, labels, rate=case.rate, target=target)
    with seeded(seed):
        model = NETS[case.net]()
    return train(model, images, labels, epochs=case.epochs, seed=seed)


def scanned(case: Case, model: nn.Module, clean: CuratedSet) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    findings = PatchInversion()(model, clean.visible(), seed=SCAN_SEED)
    spent = {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    top = max(findings, key=lambda finding: finding.score)
    flagged = [finding.target for finding in findings if finding.suspicious]
    return {"flagged": flagged, "exact": flagged == sorted(case.attacks), **spent, "top": told(top, model, clean)}


def told(finding: Finding, model: nn.Module, clean: CuratedSet) -> dict[str, Any]:
    numbers = {name: float(f"{value:.3g}") for name, value in {"score": finding.score, **finding.numbers}.items()}
    assert finding.trigger is not None
    found = measure.asr(model, clean.holdout, finding.trigger, finding.target, finding.family)
    return {"target": finding.target, "holdout_asr": round(found.estimate, 3), **numbers}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sets: dict[str, tuple[Dataset, CuratedSet]] = {}
    rows = json.loads(options.rows.read_text()) if options.rows and options.rows.exists() else []
    for number, case in enumerate(CASES):
        if options.only not in case.name or case.name in {row["name"] for row in rows}:
            continue
        if case.data not in sets:
            data = load(case.data)
            sets[case.data] = data, curated(data.clean, data.classes, data.name)
        data, clean = sets[case.data]
        model = trained(case, 1000 + number, data)
        own = {target: attack_success(model, patch, data.test, target) for target, patch in case.attacks.items()}
        rows.append({"name": case.name, "seed": 1000 + number, "acc": round(accuracy(model, data.test), 3),
                     "asr": {target: round(share, 3) for target, share in own.items()}, **scanned(case, model, clean)})
        print(rows[-1], flush=True)
        if options.rows:
            options.rows.write_text(json.dumps(rows))
    honest = [row for row in rows if not row["asr"]]
    infected = [row for row in rows if row["asr"]]
    counts = {"honest": len(honest), "false_alarms": sum(bool(row["flagged"]) for row in honest),
              "backdoored": len(infected), "caught": sum(bool(row["flagged"]) for row in infected),
              "targets_exact": sum(row["exact"] for row in infected)}
    result = {**counts, "scan_seed": SCAN_SEED, "parameters": PatchInversion().parameters(),
              "threads": options.threads, "models": rows}
    print(counts)
    if not options.only:
        print(write("detection", result, f"# Patch inversion on small models\n\n{__doc__}"))


if __name__ == "__main__":
    main()
