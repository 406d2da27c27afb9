"""How long one sift of 10,000 images takes, and how much of it networks compute."""

import time
from typing import Any

import torch

from benchmarks.data import curated
from benchmarks.fitting import Training
from benchmarks.sift.cell import SETS, Cell, make, network_time
from guard.vetting.sift import DEFAULT_METHODS, sift

METHODS = DEFAULT_METHODS
IMAGES, CLEAN, TEST, WIDTH, SEED = 10_000, 1000, 1000, 16, 11
AIM_SECONDS, AIM_SHARE = 120, 0.8


def speed(
    images: int = IMAGES, *, source: str = "fashion-mnist", threads: int = 1, width: int = WIDTH
) -> dict[str, Any]:
    """Seconds of a sift with all its own work, and the share in which networks compute.

    By default on one thread: most of the time goes into small networks, whose operations take a
    fraction of a millisecond. Where anything else runs on the machine, each of them waits for
    whichever of two threads has no core.

    Images are 28x28. The network is trained for one epoch: what a sift costs hardly hangs on how
    well it learnt. Seconds are those of the clock, `cpu_seconds` those of the processor.
    """
    cell = Cell(
        attack="patch",
        data=source,
        train=images,
        clean=CLEAN,
        test=TEST,
        seed=SEED,
        model_args={"depths": [1, 1, 1], "width": width},
        training=Training(epochs=1),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        data = SETS[source](images, CLEAN, TEST)
        made = make(cell, data)
        clean = curated(data.clean, data.classes, data.name, SEED)
        begun, used = time.perf_counter(), time.process_time()
        with network_time() as spent:
            found = sift(made.model, made.train, clean, METHODS, seed=SEED)
        wall, used = time.perf_counter() - begun, time.process_time() - used
    finally:
        torch.set_num_threads(before)
    return {
        "images": images,
        "width": width,
        "threads": threads,
        "seconds": wall,
        "cpu_seconds": used,
        "network_share": spent[0] / wall,
        "verdict": str(found.report.verdict),
        "methods": {one.method: one.seconds for one in found.report.methods},
    }
