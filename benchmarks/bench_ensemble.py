"""What every detector costs: in total, in passes of the model, and because of bfloat16.

    python -m benchmarks.bench_ensemble [--threads 2] [--repeats 2]
    python -m benchmarks.bench_ensemble --zoo DIR --models NAME NAME --device cuda
        --searches default

Each detector scans alone the demo's honest and backdoored network (28 x 28, ten classes), or models
of a zoo. Seconds are processor time on a CPU; on a GPU they are wall time, with the device
synchronised at both ends. Every forward pass is counted by its batch size, with and without
gradients; afterwards the bare network runs the same passes (forward, and backward to its input if
there were gradients) in the same precision and layout, a sample of each kind. `throughput` is the
time of those bare passes over the detector's: 1 would be a search that costs nothing beyond the
network. `clean_share` is the cost of one pass over the calibration part per detector, over the
total: the most that a cache of clean activations shared by all detectors could save. With `float32`
the searches run without bfloat16, to check whether flags agree.
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import safetensors.torch
import torch
from torch import Tensor, nn

from benchmarks.attacks.patch import Patch
from benchmarks.data import Dataset, curated, mnist
from benchmarks.demo.models import TARGET, train_model
from benchmarks.record import write
from guard.core.manifest import MANIFEST_FILE, Manifest
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.ml import precision
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks import architectures
from guard.ml.search import engine, patches
from guard.vetting import population

SAMPLES = 5  # bare passes of each kind
AT_ONCE = 10  # passes between two synchronisations of a GPU
# Kinds of passes that are timed, the most expensive ones; the rest are extrapolated.
KINDS = 40
Pass = tuple[int, bool, bool]  # images, with gradients, in bfloat16


class Counting:
    """Counts the passes of a network and of its deep copies, which keep this forward hook."""

    passes: ClassVar[Counter[Pass]] = Counter()

    def __call__(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        images = given[0]
        Counting.passes[
            len(images), torch.is_grad_enabled(), torch.is_autocast_enabled(images.device.type)
        ] += 1


@dataclass(frozen=True)
class Examined:
    """A network, the clean set that its scan sees, and its description for the record."""

    name: str
    model: nn.Module
    clean: CleanSet
    facts: dict[str, Any]


def clock(device: torch.device) -> float:
    """Processor seconds; on a GPU the wall clock, after all pending work is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def of_zoo(zoo: Path, names: list[str], device: str) -> list[Examined]:
    """These models of a zoo, on a device."""
    found = []
    for member in population.members(zoo):
        if member.name not in names:
            continue
        curated = population.read_cleanset(population.cleanset_of(zoo, member))
        manifest = Manifest.parse((member.folder / MANIFEST_FILE).read_bytes())
        weights = safetensors.torch.load_file(member.folder / population.MODEL)
        model = architectures.load(manifest, weights).eval().to(device)
        facts = {key: member.truth[key] for key in ("architecture", "data", "target", "acc", "asr")}
        facts |= {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "input": manifest.input_size,
        }
        found.append(Examined(member.name, model, curated.visible(), facts))
    return found


def of_demo(data: Dataset) -> list[Examined]:
    """The demo's honest and backdoored models."""
    found, clean = [], curated(data.clean, data.classes, data.name).visible()
    with tempfile.TemporaryDirectory() as folder:
        for name, seed, attack in (("honest", 1, None), ("backdoored", 2, Patch(seed=2))):
            truth, weights = train_model(
                data,
                Path(folder),
                name,
                seed=seed,
                attack=attack,
                target=TARGET if attack else None,
            )
            manifest = Manifest.parse((truth.folder / "config.json").read_bytes())
            found.append(
                Examined(
                    name,
                    architectures.load(manifest, weights).eval(),
                    clean,
                    {"target": truth.target, "acc": truth.acc, "asr": truth.asr},
                )
            )
    return found


def looked(
    detector: str, model: nn.Module, clean: CleanSet, seed: int, *, searches: str
) -> dict[str, Any]:
    """One detector on one model: seconds, passes, and the flagged classes."""
    Counting.passes = Counter()
    hook = model.register_forward_pre_hook(Counting())
    with ExitStack() as stack:
        stack.callback(hook.remove)
        if searches == "float32":
            for module in (patches, engine):
                stack.enter_context(
                    patch.object(module, "searching", lambda _device: nullcontext())
                )
        start = clock(device_of(model))
        findings = DETECTORS.get(detector)()(model, clean, seed=seed)
        spent = clock(device_of(model)) - start
    return {
        "detector": detector,
        "searches": searches,
        "seconds": round(spent, 2),
        "flagged": sorted({str(finding.target) for finding in findings if finding.suspicious}),
        "passes": sum(Counting.passes.values()),
        "pictures": sum(n * size for (size, _, _), n in Counting.passes.items()),
    }


def bare_seconds(model: nn.Module, images: Tensor, passes: Counter[Pass]) -> float:
    """Seconds of these passes by the network alone."""
    model = model.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    ranked = sorted(passes.items(), key=lambda item: -item[0][0] * item[1])
    known, images_known, images_left = (
        0.0,
        0,
        sum(size * count for (size, _, _), count in ranked[KINDS:]),
    )
    for kind, count in ranked[:KINDS]:
        known += count * _one_pass(model, images, kind)
        images_known += kind[0] * count
    return known * (1 + images_left / max(1, images_known))


def _one_pass(model: nn.Module, images: Tensor, kind: Pass) -> float:
    size, gradients, low = kind
    batch = images[torch.arange(size) % len(images)].contiguous()
    # A search does not synchronise the GPU after each pass either.
    at_once = AT_ONCE if batch.device.type == "cuda" else 1
    best = float("inf")
    for _ in range(SAMPLES):
        given = batch.clone().requires_grad_(gradients)
        start = clock(batch.device)
        for _ in range(at_once):
            with (
                torch.set_grad_enabled(gradients),
                torch.autocast(batch.device.type, torch.bfloat16, enabled=low),
            ):
                total = model(given).float().sum()
            if gradients:
                torch.autograd.grad(total, given)
        best = min(best, (clock(batch.device) - start) / at_once)
    return best


def row_of(examined: Examined, detector: str, seed: int, searches: str) -> dict[str, Any]:
    """The result of `looked`, with the bare passes added."""
    model = examined.model
    row = looked(detector, model, examined.clean, seed, searches=searches)
    bare = bare_seconds(model, examined.clean.search.floats().to(device_of(model)), Counting.passes)
    row |= {
        "model": examined.name,
        "seed": seed,
        "bare_seconds": round(bare, 2),
        "throughput": round(bare / row["seconds"], 3),
    }
    print(row, flush=True)
    return row


def totals(rows: list[dict[str, Any]], clean_pass: float) -> dict[str, Any]:
    """The totals of all detectors, run as by the policy (bfloat16 if the hardware supports it)."""
    own = [row for row in rows if row["searches"] == "default"]
    runs = len({(row["model"], row["seed"]) for row in own})
    seconds = sum(row["seconds"] for row in own)
    same = [
        (row, other)
        for row in own
        for other in rows
        if other["searches"] == "float32"
        and all(row[key] == other[key] for key in ("model", "seed", "detector"))
    ]
    found = {
        "seconds_a_model": round(seconds / runs, 1),
        "throughput": round(sum(row["bare_seconds"] for row in own) / seconds, 3),
        "clean_share": round(clean_pass * len(own) / seconds, 4),
    }
    if same:
        found |= {
            "float32_over_default": round(
                sum(other["seconds"] for _, other in same) / sum(row["seconds"] for row, _ in same),
                2,
            ),
            "same_flags": f"{sum(a['flagged'] == b['flagged'] for a, b in same)} of {len(same)}",
        }
    return found


def main() -> None:
    """Measure and write a record."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.zeros(1, device="cuda")  # starts the device, which no detector should pay for
    models = (
        of_zoo(options.zoo, options.models, options.device) if options.zoo else of_demo(mnist())
    )
    if not models:
        raise SystemExit("none of the named models is in the zoo")
    rows = [
        row_of(examined, detector, seed, searches)
        for seed in range(options.repeats)
        for examined in models
        for detector in DETECTORS.of(Modality.IMAGES)
        for searches in options.searches
    ]
    first = models[0]
    start = clock(device_of(first.model))
    accuracy(first.model, first.clean.calibration, first.clean.classes)
    clean_pass = clock(device_of(first.model)) - start
    result = {
        "threads": options.threads,
        "n": options.repeats,
        "device": options.device,
        "named": torch.cuda.get_device_name() if options.device == "cuda" else "",
        "bfloat16": precision._multiplies(options.device),  # noqa: SLF001 - the question it asks itself
        "models": {one.name: one.facts for one in models},
        "clean_pass_seconds": round(clean_pass, 3),
        "totals": totals(rows, clean_pass),
        "runs": rows,
    }
    print(
        result["totals"],
        write(options.name, result, f"# What a scan by every detector costs\n\n{__doc__}"),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--zoo", type=Path, help="a folder of models; default: the demo's two")
    parser.add_argument("--models", nargs="+", default=[], help="names of models in the zoo")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="for models of a zoo"
    )
    parser.add_argument(
        "--searches", nargs="+", default=["default", "float32"], choices=("default", "float32")
    )
    parser.add_argument("--name", default="ensemble")
    return parser.parse_args()


if __name__ == "__main__":
    main()
