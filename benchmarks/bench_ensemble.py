"""What every detector costs on the demo's models: total, how much of it is the model's own passes, and bfloat16's part.

    python -m benchmarks.bench_ensemble [--threads 2] [--repeats 2]

Each detector looks at the demo's honest and backdoored network (28 x 28, ten classes) alone. Every forward pass is
counted by its batch, with and without gradients; afterwards the bare network runs the same passes (forward, and
backward to its input where there were gradients) in the same precision and layout, a sample of each kind. `throughput`
is the time of those bare passes over the detector's: 1 would be a search that costs nothing beside the network.
`clean_share` is what one pass over the calibration part costs, once a detector, over the total: the most that a cache
of clean activations which all detectors share could save. With `float32` the searches run without bfloat16: do flags
agree?
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.attacks.patch import Patch
from benchmarks.data import Dataset, curated, mnist
from benchmarks.demo.models import TARGET, train_model
from benchmarks.record import write
from guard.detectors import DETECTORS
from guard.ml import architectures, inversion, precision, universal
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy

SAMPLES = 5  # bare passes of each kind
KINDS = 40  # of passes that are timed, the most expensive ones; the rest count as their neighbours do
Pass = tuple[int, bool, bool]  # pictures, with gradients, in bfloat16


class Counting:
    """Counts a network's passes, also those of its copies: a forward hook travels with a deep copy."""

    passes: ClassVar[Counter[Pass]] = Counter()

    def __call__(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        Counting.passes[len(given[0]), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")] += 1


def networks(data: Dataset) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """The demo's honest and backdoored models."""
    found: dict[str, tuple[nn.Module, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, seed, attack in (("honest", 1, None), ("backdoored", 2, Patch(seed=2))):
            truth, weights = train_model(data, Path(folder), name, seed=seed, attack=attack,
                                         target=TARGET if attack else None)
            manifest = architectures.Manifest.parse((truth.folder / "config.json").read_bytes())
            found[name] = (architectures.load(manifest, weights).eval(),
                           {"target": truth.target, "acc": truth.acc, "asr": truth.asr})
    return found


def looked(detector: str, model: nn.Module, clean: CleanSet, seed: int, *, searches: str) -> dict[str, Any]:
    """One detector on one model: seconds, passes, and what it flags."""
    Counting.passes = Counter()
    hook = model.register_forward_pre_hook(Counting())
    with ExitStack() as stack:
        stack.callback(hook.remove)
        if searches == "float32":
            for module in (inversion, universal):
                stack.enter_context(patch.object(module, "searching", lambda _device: nullcontext()))
        start = time.process_time()
        findings = DETECTORS.get(detector)()(model, clean, seed=seed)
        spent = time.process_time() - start
    return {"detector": detector, "searches": searches, "cpu_seconds": round(spent, 2),
            "flagged": sorted({str(finding.target) for finding in findings if finding.suspicious}),
            "passes": sum(Counting.passes.values()), "pictures": sum(n * size for (size, _, _), n in
                                                                     Counting.passes.items())}


def bare_seconds(model: nn.Module, pictures: Tensor, passes: Counter[Pass]) -> float:
    """Processor seconds of these passes by the network alone."""
    model = model.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    ranked = sorted(passes.items(), key=lambda item: -item[0][0] * item[1])
    known, pictures_known, pictures_left = 0.0, 0, sum(size * count for (size, _, _), count in ranked[KINDS:])
    for kind, count in ranked[:KINDS]:
        known += count * _one_pass(model, pictures, kind)
        pictures_known += kind[0] * count
    return known * (1 + pictures_left / max(1, pictures_known))


def _one_pass(model: nn.Module, pictures: Tensor, kind: Pass) -> float:
    size, gradients, low = kind
    images = pictures[torch.arange(size) % len(pictures)].contiguous()
    best = float("inf")
    for _ in range(SAMPLES):
        given = images.clone().requires_grad_(gradients)
        start = time.process_time()
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = model(given).float().sum()
        if gradients:
            torch.autograd.grad(total, given)
        best = min(best, time.process_time() - start)
    return best


def row_of(name: str, model: nn.Module, clean: CleanSet, detector: str, seed: int, searches: str) -> dict[str, Any]:
    """As `looked`, with the bare passes beside it."""
    row = looked(detector, model, clean, seed, searches=searches)
    bare = bare_seconds(model, clean.search.floats(), Counting.passes)
    row |= {"model": name, "seed": seed, "bare_cpu_seconds": round(bare, 2),
            "throughput": round(bare / row["cpu_seconds"], 3)}
    print(row, flush=True)
    return row


def totals(rows: list[dict[str, Any]], clean_pass: float) -> dict[str, Any]:
    """Of all detectors together, as the policy would run them (bfloat16 where the hardware multiplies it)."""
    own = [row for row in rows if row["searches"] == "default"]
    runs = len({(row["model"], row["seed"]) for row in own})
    seconds = sum(row["cpu_seconds"] for row in own)
    same = [(row, other) for row in own for other in rows if other["searches"] == "float32"
            and all(row[key] == other[key] for key in ("model", "seed", "detector"))]
    return {
        "cpu_seconds_a_model": round(seconds / runs, 1),
        "throughput": round(sum(row["bare_cpu_seconds"] for row in own) / seconds, 3),
        "clean_share": round(clean_pass * len(own) / seconds, 4),
        "float32_over_default": round(sum(other["cpu_seconds"] for _, other in same)
                                      / sum(row["cpu_seconds"] for row, _ in same), 2),
        "same_flags": f"{sum(a['flagged'] == b['flagged'] for a, b in same)} of {len(same)}",
    }


def main() -> None:
    """Measure and write a record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = mnist()
    clean = curated(data.clean, data.classes, data.name).visible()
    models = networks(data)
    rows = [row_of(name, model, clean, detector, seed, searches)
            for seed in range(options.repeats) for name, (model, _) in models.items()
            for detector in DETECTORS.names() for searches in ("default", "float32")]
    model = next(iter(models.values()))[0]
    start = time.process_time()
    accuracy(model, clean.calibration, clean.classes)
    clean_pass = time.process_time() - start
    result = {"threads": options.threads, "n": options.repeats, "bfloat16": precision._multiplies("cpu"),
              "models": {name: facts for name, (_, facts) in models.items()}, "clean_pass_cpu_seconds":
              round(clean_pass, 3), "totals": totals(rows, clean_pass), "runs": rows}
    print(result["totals"], write("ensemble", result, f"# What a scan by every detector costs\n\n{__doc__}"))


if __name__ == "__main__":
    main()
