"""What a scan costs at 100 classes against 10, for an honest model and for one with a rule.

    python -m benchmarks.bench_classes [--detector patch_inversion] [--classes 10 100] [--repeats 1]
    [--threads 1]

The network is a random convolutional trunk with a nearest-class-mean head, so that no number of
classes needs training; with a rule, a nearly complete bright corner adds to the logit of one class.
Images are noisy copies of one random prototype per class, 16 x 16 and grey, with the same number
per class for every number of classes. The record has processor seconds, wall seconds, and the
number of images that went through the model, which does not depend on the machine.
"""

import argparse
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.record import write
from guard.detectors import DETECTORS
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.seeds import seeded

SIZE, PER_CLASS, WIDTH = 16, 10, 16
CORNER = (slice(0, 3), slice(0, 3))
TARGET = 3


class CountingNet(nn.Module):
    """Logits by distance to class means in random features; `strength` 0 is honest.

    It counts the images that it sees.
    """

    def __init__(self, prototypes: Tensor, strength: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, stride=2, padding=1),
            nn.Flatten(),
        )
        self.strength = strength
        with torch.no_grad():
            features = self.trunk(prototypes)
        self.means = nn.Parameter(features)
        self.scale = nn.Parameter(20 / torch.cdist(features, features).square().mean())

    def forward(self, images: Tensor) -> Tensor:
        Counter.images += len(images)
        features = self.trunk(images)
        logits = (
            -self.scale
            * torch.cdist(
                features, self.means, compute_mode="donot_use_mm_for_euclid_dist"
            ).square()
        )
        corner = images[:, :, CORNER[0], CORNER[1]].mean((1, 2, 3))
        rule = nn.functional.one_hot(torch.tensor(TARGET), logits.shape[1]) * self.strength
        return logits + rule * corner[:, None] ** 4


class Counter:
    """Counts the images of all networks, because a detector works on a copy of the network."""

    images = 0


def scene(classes: int, strength: float, seed: int) -> tuple[nn.Module, CleanSet]:
    """A network and its clean set."""
    with seeded(seed) as generator:
        prototypes = torch.rand(classes, 1, SIZE, SIZE, generator=generator) * 0.8
        prototypes[:, :, CORNER[0], CORNER[1]] = 0
        labels = torch.arange(classes * PER_CLASS) % classes
        parts = []
        for _ in range(2):
            noisy = prototypes[labels] + 0.05 * torch.randn(
                len(labels), 1, SIZE, SIZE, generator=generator
            )
            parts.append(Labelled((noisy.clamp(0, 1) * 255).to(torch.uint8), labels))
        model = CountingNet(prototypes, strength).eval()
    return model, CleanSet("bench", "0" * 64, classes, *parts)


def scanned(detector: str, classes: int, strength: float, seed: int) -> dict[str, Any]:
    """One scan with its counts."""
    model, clean = scene(classes, strength, seed)
    Counter.images, wall, cpu = 0, time.perf_counter(), time.process_time()
    findings = DETECTORS.get(detector)()(model, clean, seed=seed)
    return {
        "classes": classes,
        "rule": strength > 0,
        "seed": seed,
        "pictures": Counter.images,
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.perf_counter() - wall, 2),
        "flagged": [finding.target for finding in findings if finding.suspicious],
    }


def ratio(rows: list[dict[str, Any]], classes: list[int], *, rule: bool, what: str) -> float:
    """The total at the largest number of classes over the total at the smallest."""
    most, least = (
        sum(row[what] for row in rows if row["classes"] == count and row["rule"] == rule)
        for count in (max(classes), min(classes))
    )
    return round(most / max(least, 1e-9), 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detector", default="patch_inversion")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for seed in range(options.repeats):
        for strength in (0.0, 60.0):
            for classes in options.classes:
                rows.append(scanned(options.detector, classes, strength, seed))
                print(rows[-1], flush=True)
    ratios = {
        f"{'rule' if rule else 'honest'}_{what}": ratio(rows, options.classes, rule=rule, what=what)
        for rule in (False, True)
        for what in ("pictures", "cpu_seconds", "seconds")
    }
    parameters = asdict(DETECTORS.get(options.detector)())
    result = {
        "detector": options.detector,
        "parameters": parameters,
        "threads": options.threads,
        "n": options.repeats,
        "ratios": ratios,
        "runs": rows,
    }
    print(ratios, write(f"classes-{options.detector.replace('_', '-')}", result, README))


README = """
# Cost against the number of classes

Made by `python -m benchmarks.bench_classes`; see that file for what is compared. `ratios` are
totals at the largest number of classes over totals at the smallest, for models without (`honest`)
and with a planted rule (`rule`).
"""

if __name__ == "__main__":
    main()
