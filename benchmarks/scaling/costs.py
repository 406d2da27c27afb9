"""What a scan of each size costs: times of records; stated ranges where there is none."""

import json
import random
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.record import RECORDS, load
from benchmarks.scaling.model import Draw

SMALL_RECORD = "2026-11-27-detect-default"
WIDE_RECORD = "2026-11-27-paper-size"
SMALL_REPAIRS = "2026-11-28-purify-exam"
WIDE_REPAIRS = "2026-11-28-purify-paper-size"
INTAKE = "2026-11-21-intake"
OVERHEAD = "2026-11-21-overhead"
ROWS_COMMIT = "237b136"  # the last one that has a row for each model
CLEAN_FRACTION = 0.05  # of the repairs' clean images
MIB = 2**20
WEIGHT_BYTES = 4
#: GUARD_SCAN_SECONDS: no detection takes longer.
STAGE_LIMIT = 3600.0
#: An hour of one core, as issue 25 states it for EfficientNet-Lite0 at 96 x 96; more is cut off.
STATED_HOUR, STATED_RANGE = 3600.0, (0.5, 1.0)
#: Weights of the zoo's networks, about; issue 25.
SMALL_WEIGHTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size of model on the machine that scans it.

    Attributes:
        name: how tables call it.
        machine: what one worker of the queue `scan` is.
        weights: parameters of the network.
        detection: seconds that detectors took or are taken to take, one a model.
        repair: seconds of a tournament, about.
        measured: whether a record has the detection's seconds.
        source: where they are from, or how they are stated.
    """

    name: str
    machine: str
    weights: int
    detection: Sequence[float]
    repair: float
    measured: bool
    source: str

    @property
    def bytes(self) -> int:
        """Of the weights as float32."""
        return WEIGHT_BYTES * self.weights

    @property
    def median(self) -> float:
        """Seconds of a detection."""
        return statistics.median(self.detection)

    def detect(self, rng: random.Random) -> float:
        """One of the measured or stated times."""
        return rng.choice(self.detection)

    def purify(self, rng: random.Random) -> float:
        """A tournament, which varies as detections do."""
        return self.repair * self.detect(rng) / self.median


def sizes() -> list[Size]:
    """Those of the tables, from the records in this tree and in its history."""
    small, wide = detections(SMALL_RECORD), detections(WIDE_RECORD)
    small_repair, wide_repair = repair_seconds(SMALL_REPAIRS), repair_seconds(WIDE_REPAIRS)
    low, high = STATED_RANGE
    lite, paper, large = _networks()
    more = large["operations"] / paper["operations"]
    least = statistics.median(wide) * more
    return [
        Size(
            name="small, 32 x 32",
            machine="a process on a machine of two cores",
            weights=SMALL_WEIGHTS,
            detection=small,
            repair=small_repair,
            measured=True,
            source=f"{len(small)} models of {SMALL_RECORD}; repairs: {SMALL_REPAIRS}",
        ),
        Size(
            name="full width, 32 x 32",
            machine="one H200",
            weights=paper["weights"],
            detection=wide,
            repair=wide_repair,
            measured=True,
            source=f"{len(wide)} models of {WIDE_RECORD}, detectors of `default`; repairs: "
            f"{WIDE_REPAIRS}",
        ),
        Size(
            name="EfficientNet-Lite0, 96 x 96",
            machine="a process on one core",
            weights=lite["weights"],
            detection=_evenly(low * STATED_HOUR, high * STATED_HOUR),
            repair=STATED_HOUR * small_repair / statistics.median(small),
            measured=False,
            source=f"no record; issue 25 states an hour of one core, taken as {low:g} to {high:g} "
            "hours; repairs: as many times a detection as of small ones",
        ),
        Size(
            name="ResNet-50, 224 x 224",
            machine="one H200",
            weights=large["weights"],
            detection=_evenly(least, STAGE_LIMIT),
            repair=least * wide_repair / statistics.median(wide),
            measured=False,
            source=f"no record; from {more:.1f} times the full width's median, by operations of an "
            "image, to the limit of a stage; repairs likewise",
        ),
    ]


def _evenly(low: float, high: float, count: int = 101) -> list[float]:
    return [low + (high - low) * place / (count - 1) for place in range(count)]


@cache
def detections(record: str) -> list[float]:
    """Seconds of the default policy's detectors, one a model.

    Rows of models lie in the history; where it is not there, the sum of the summary's medians.
    """
    wanted = load(RECORDS / SMALL_RECORD)["result"]["detectors"]
    shown = subprocess.run(
        ["git", "show", f"{ROWS_COMMIT}:benchmarks/records/{record}/rows.json"],
        cwd=RECORDS,
        capture_output=True,
        check=False,
    )
    if shown.returncode:
        medians = load(RECORDS / record)["result"]["detectors"]
        return [sum(medians[name]["median_seconds"] for name in wanted)]
    return [
        sum(row["detectors"][name]["seconds"] for name in wanted)
        for row in json.loads(shown.stdout)
        if wanted.keys() <= row["detectors"].keys()
    ]


def repair_seconds(record: str) -> float:
    """Median seconds of a tournament, with 5 % of clean images."""
    lines = load(RECORDS / record)["result"]["summary"]
    (found,) = [
        line["seconds"]
        for line in lines
        if (line["defense"], line["fraction"]) == ("tournament", CLEAN_FRACTION)
    ]
    return float(found)


def receive_rate() -> float:
    """Bytes a second that are received, hashed and kept."""
    return float(load(RECORDS / INTAKE)["result"]["mib_per_s_median"]) * MIB


def short_stages() -> dict[str, float]:
    """Seconds of the stages beside the methods, as one upload was seen on a quiet machine.

    `receive` is all from the upload to the scan's row, `decide` what no state was seen for.
    """
    found = load(RECORDS / OVERHEAD)["result"]
    seen = found["stages_s"]
    return {
        "receive": found["upload_to_served_s"] - found["total_s"],
        "inspect": seen["inspecting"],
        "decide": found["total_s"] - sum(seen.values()),
        "publish": seen["publishing"],
    }


def stage_seconds(size: Size) -> dict[str, Draw]:
    """How long each stage takes, longer for larger files."""
    reading, short = size.bytes / receive_rate(), short_stages()
    # Inspecting reads and writes a file, publishing too.
    files = {"receive": 1, "inspect": 2, "decide": 0, "publish": 2}
    return {
        **{name: _about(mean + files[name] * reading) for name, mean in short.items()},
        "detect": size.detect,
        "purify": size.purify,
    }


def _about(mean: float) -> Draw:
    return lambda rng: rng.expovariate(1 / mean)


@cache
def _networks() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Weights, and operations of one image, of EfficientNet-Lite0, PreAct-ResNet18, ResNet-50."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from guard.core.manifest import Manifest
    from guard.ml.networks import architectures

    wide = Manifest(
        architecture="preact_resnet18",
        num_classes=10,
        input_size=(3, 32, 32),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    found = []
    for model, side in (
        (timm.create_model("tf_efficientnet_lite0", num_classes=10), 96),
        (architectures.build(wide), 32),
        (timm.create_model("resnet50"), 224),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            model.eval()(torch.zeros(1, 3, side, side))
        found.append(
            {
                "weights": sum(one.numel() for one in model.parameters()),
                "operations": counted.get_total_flops(),
            }
        )
    return found[0], found[1], found[2]
