"""Whether channels-last weights and bfloat16 searches change a verdict, and what they save.

    python -m benchmarks.bench_layout --zoo DIR [--sample N] [--policy P]

Models of a zoo, drawn by a fixed seed, are scanned as the guard does it (weights in NHWC, searches
in bfloat16 if the processor supports it), with weights in NCHW, and with searches in float32, all
with the same seed and one thread. Times are processor times.
"""

import argparse
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import guard
from benchmarks import record, zoo
from benchmarks.speed_tables import layouts
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.policy import Policy, load_policy
from guard.vetting import population

SHIPPED, NCHW, FLOAT32 = "as shipped", "NCHW", "float32"
PLACES = (
    "guard.ml.training.small_network",
    *(f"guard.detectors.{name}" for name in DETECTORS.of(Modality.IMAGES)),
)


def scanned(model: zoo.ZooModel, policy: Policy, way: str) -> dict[str, Any]:
    """One scan: verdict, what each method flags, and processor seconds."""
    with ExitStack() as stack:
        if way == NCHW:
            for module in map(import_module, PLACES):
                if hasattr(module, "channels_last"):
                    stack.enter_context(patch.object(module, "channels_last", lambda _model: None))
        if way == FLOAT32:
            for module in map(import_module, ("guard.ml.search.patches", "guard.ml.search.engine")):
                stack.enter_context(
                    patch.object(module, "searching", lambda _device: nullcontext())
                )
        started = time.process_time()
        report = guard.scan(
            model.folder, cleanset=population.read_cleanset(model.cleanset), policy=policy, seed=0
        )
        spent = time.process_time() - started
    flagged = {
        item["method"]: sorted(
            str(found["target"]) for found in item["findings"] if found["suspicious"]
        )
        for item in report.evidence
        if item["method"] in policy.detectors
    }
    return {
        "model": model.name,
        "way": way,
        "verdict": str(report.verdict),
        "flagged": flagged,
        "cpu_seconds": round(spent, 2),
    }


def compared(rows: Sequence[dict[str, Any]], way: str) -> dict[str, Any]:
    """How many models have the same verdict and flags, and the time over the shipped way's."""
    own = {row["model"]: row for row in rows if row["way"] == way}
    shipped = {row["model"]: row for row in rows if row["way"] == SHIPPED}
    return {
        "models": len(own),
        "same_verdict": sum(
            row["verdict"] == shipped[name]["verdict"] for name, row in own.items()
        ),
        "same_flags": sum(row["flagged"] == shipped[name]["flagged"] for name, row in own.items()),
        "time_ratio": sum(row["cpu_seconds"] for row in own.values())
        / sum(shipped[name]["cpu_seconds"] for name in own),
    }


def main() -> None:
    """Measure and write a record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=6)
    parser.add_argument("--policy", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy, models = load_policy(options.policy), zoo.load(options.zoo)
    rows = []
    for model in random.Random(0).sample(models, min(options.sample, len(models))):
        for way in (SHIPPED, NCHW, FLOAT32):
            rows.append(scanned(model, policy, way))
            print(rows[-1], flush=True)
    result = {
        "zoo": options.zoo.resolve().name,
        "policy": policy.name,
        "rows": rows,
        "layouts": {way: compared(rows, way) for way in (NCHW, FLOAT32)},
    }
    print(
        record.write("layout", result, f"# Layout and precision\n\n{__doc__}\n{layouts(result)}\n")
    )


if __name__ == "__main__":
    main()
