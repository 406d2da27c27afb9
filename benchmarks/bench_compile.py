"""Whether `torch.compile` pays for a search: its cost, the gain per step, and the break-even.

    python -m benchmarks.bench_compile [--steps N]

The search is patch inversion of ten classes on PreAct-ResNet18 at a quarter of its width, as the
detector runs it but without bfloat16, which compiling would have to match. Times are processor
times of this process and of the compilers it waits for, on one thread. Every uploaded model would
be compiled afresh, without reuse of an earlier one.
"""

import argparse
import os
import resource
from typing import Any

# The processes of a pool would not be counted.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import torch
from torch import nn

from benchmarks.bench_repair_speed import noise_images
from benchmarks.record import write
from benchmarks.repair_ways import CLASSES, network
from guard.core.progress import silent
from guard.ml.search.patches import PatchEffort, smallest_patches
from guard.ml.seeds import seeded
from guard.ml.suitability import channels_last

SCAN_STEPS = 200 + 3 * 100 + 60  # steps of the detector with its full batch


def spent() -> float:
    """Processor seconds of this process and of the processes that it waited for."""
    uses = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in uses)


def seconds(model: nn.Module, steps: int) -> float:
    """Processor seconds of one search of so many steps, each with 16 images per class."""
    started = spent()
    with seeded(0):
        smallest_patches(
            model,
            noise_images(256).search,
            torch.arange(CLASSES),
            PatchEffort(steps=steps, batch=16),
            silent,
        )
    return spent() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = network().requires_grad_(requires_grad=False)
    channels_last(model)
    plain = seconds(model, options.steps)
    compiled: Any = torch.compile(model)
    first = seconds(compiled, options.steps)
    later = seconds(compiled, options.steps)
    gain = (plain - later) / options.steps
    result = {
        "steps": options.steps,
        "plain_seconds": plain,
        "first_seconds": first,
        "compiled_seconds": later,
        "compile_seconds": first - later,
        "step_ratio": later / plain,
        "scan_steps": SCAN_STEPS,
        "even_after": (first - later) / gain if gain > 0 else None,
    }
    print(write("compile", result, f"# Does torch.compile pay?\n\n{__doc__}"), result)


if __name__ == "__main__":
    main()
