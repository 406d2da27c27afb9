"""How long the probes of a repair take, by the network's width.

    python -m benchmarks.bench_proof [--widths 16 64] [--triggers 1] [--device cuda]

A PreAct-ResNet18 with fresh weights (64 channels is full width) stands for upload and child, and
images are noise. The time of the probes does not depend on the weights, with one exception: if a
distribution is learnt, the fresh patches are its samples, otherwise they are searched, which takes
longer. Here the patch leads to the class that the network predicts anyway, as a backdoor's would.
`guard.vetting.repair_probes.SECONDS` is the limit of all probes; the record states how much of it
was used.
"""

import argparse
import copy
import json
import math
import time
from typing import TYPE_CHECKING, Any, cast

import torch

from benchmarks import record
from benchmarks.repair_ways import CLASSES, SIDE, network
from benchmarks.speed_tables import proofs
from guard.core.evidence import CleanSetFacts
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.measure import predict
from guard.ml.triggers import PatchTrigger
from guard.ml.triggers.files import serialise
from guard.vetting.repair_probes import SECONDS, Replay, prove

if TYPE_CHECKING:
    from guard.ml.networks.architectures import ImageModel

SEARCH, CALIBRATION, HOLDOUT = 200, 50, 450  # images, as in the zoos at 5 %
PATCH = 3  # side in pixels


def timed(width: int, triggers: int, device: str) -> dict[str, Any]:
    """Seconds of one proof with the patches of so many classes, and what it could not answer."""
    parent, shown = network(width, device), noise()
    target = int(torch.bincount(predict(parent, shown.holdout), minlength=CLASSES).argmax())
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, -PATCH:, -PATCH:] = 1
    patch = serialise(
        PatchTrigger(mask, torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    )
    replays = [
        Replay(target=(target + place) % CLASSES, digest=str(place), data=patch)
        for place in range(triggers)
    ]
    started = time.perf_counter()
    found = prove(
        cast("ImageModel", parent), copy.deepcopy(parent), shown, replays, seconds=math.inf
    )
    return {
        "width": width,
        "triggers": triggers,
        "seconds": time.perf_counter() - started,
        "resampled": len(found.resampled),
        "relearned": len(found.relearned),
        "woken": len(found.reactivated),
        "shared": found.shared is not None,
        "unproved": list(found.unproved),
    }


def noise() -> CuratedSet:
    """A clean set of the zoos' size."""
    generator, parts = torch.Generator().manual_seed(0), []
    for count in (SEARCH, CALIBRATION, HOLDOUT):
        images = torch.randint(
            0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8
        )
        parts.append(Labelled(images, torch.arange(count) % CLASSES))
    facts = CleanSetFacts(
        name="noise",
        digest="0" * 64,
        classes=CLASSES,
        channels=3,
        height=SIDE,
        width=SIDE,
        per_class=(SEARCH + CALIBRATION + HOLDOUT) // CLASSES,
        search=SEARCH,
        calibration=CALIBRATION,
        holdout=HOLDOUT,
    )
    return CuratedSet(facts, *parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument(
        "--triggers", type=int, default=1, help="number of classes whose patches are tested"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="proof")
    options = parser.parse_args()
    runs = []
    for width in options.widths:
        runs.append(timed(width, options.triggers, options.device))
        print(json.dumps(runs[-1]), flush=True)
    result = {
        "limit": SECONDS,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "proofs": runs,
    }
    print(
        record.write(
            options.name, result, f"# How long a proof takes\n\n{__doc__}\n{proofs(result)}\n"
        )
    )


if __name__ == "__main__":
    main()
