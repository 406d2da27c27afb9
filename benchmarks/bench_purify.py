"""What each defense makes of small backdoored models: ACC, ASR, DER, the worst class, and seconds.

    python -m benchmarks.bench_purify [--only PART_OF_A_NAME] [--defenses patch_unlearning,sau,fine_tune] [--rows FILE]

`--rows` keeps what is done, so that a run that was ended can go on. Every defense has its default parameters, sees the
model, the clean set and a seed, and is called once. Seeds and triggers of these models were used for no choice.
ASR is the attacker's own trigger's, on the whole test part; DER as in BackdoorBench:
(max(0, ASR before - after) - max(0, ACC before - after) + 1) / 2.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from benchmarks.attacks.patch import Patch
from benchmarks.data import Dataset, curated, load
from benchmarks.demo.models import manifest_for
from benchmarks.record import write
from benchmarks.training import accuracy, attack_success, predictions, train
from guard.core.errors import MethodFailed
from guard.defenses import DEFENSES
from guard.ml import architectures
from guard.ml.cleanset import CleanSet
from guard.ml.seeds import seeded

EPOCHS, RATE, REPAIR_SEED = 6, 0.1, 5


@dataclass(frozen=True)
class Case:
    """One model; without a patch it is honest."""

    name: str
    data: str
    seed: int
    target: int | None = None
    patch: Patch | None = None


CASES = (
    Case("mnist-white3", "mnist", 21, 4, Patch(seed=21)),
    Case("mnist-checker3", "mnist", 22, 8, Patch(corner="top-left", pattern="checker", seed=22)),
    Case("mnist-random4", "mnist", 23, 1, Patch(size=4, corner="bottom-left", pattern="random", seed=23)),
    Case("mnist-honest", "mnist", 24),
    Case("fashion-white3", "fashion-mnist", 25, 7, Patch(seed=25)),
    Case("fashion-random4", "fashion-mnist", 26, 1, Patch(size=4, corner="top-right", pattern="random", seed=26)),
    Case("fashion-honest", "fashion-mnist", 27),
)


def trained(case: Case, data: Dataset) -> nn.Module:
    manifest = manifest_for(data)
    with seeded(case.seed):
        model = architectures.wrap(manifest, architectures.build(manifest))
    images, labels = data.train.images, data.train.labels
    if case.patch is not None and case.target is not None:
        images, labels, _ = case.patch.poison(images, labels, rate=RATE, target=case.target)
    return train(model, images, labels, epochs=EPOCHS, seed=case.seed)


def measured(case: Case, model: nn.Module, data: Dataset) -> dict[str, Any]:
    said = predictions(model, data.test.images)
    recall = [float((said[data.test.labels == label] == label).double().mean()) for label in range(data.classes)]
    asr = None
    if case.patch is not None and case.target is not None:
        asr = attack_success(model, case.patch, data.test, case.target)
    return {"acc": accuracy(model, data.test), "asr": asr, "recall": recall}


def repaired(case: Case, model: nn.Module, before: dict[str, Any], name: str, clean: CleanSet,
             data: Dataset) -> dict[str, Any]:
    row: dict[str, Any] = {"model": case.name, "defense": name, "parameters": DEFENSES.get(name)().parameters()}
    started, cpu = time.perf_counter(), time.process_time()
    try:
        child = DEFENSES.get(name)()(model, clean, seed=REPAIR_SEED)
    except MethodFailed as error:
        return row | {"failed": error.code}
    row |= {"seconds": round(time.perf_counter() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    after = measured(case, child, data)
    drop = before["acc"] - after["acc"]
    row |= {"acc_before": round(before["acc"], 4), "acc": round(after["acc"], 4), "worst_class_drop": round(max(
        one - two for one, two in zip(before["recall"], after["recall"], strict=True)), 3)}
    if before["asr"] is not None:
        fall = max(0.0, before["asr"] - after["asr"])
        row |= {"asr_before": round(before["asr"], 4), "asr": round(after["asr"], 4),
                "der": round((fall - max(0.0, drop) + 1) / 2, 4)}
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the models that each defense repaired, and how many it did not."""
    table = {}
    for name in sorted({row["defense"] for row in rows}):
        own = [row for row in rows if row["defense"] == name]
        bad = [row for row in own if "asr" in row]
        table[name] = {
            "models": len(own), "failed": sum("failed" in row for row in own), "backdoored_repaired": len(bad),
            **({key: round(fmean(row[key] for row in bad), 4) for key in ("acc_before", "acc", "asr", "der", "seconds")}
               | {"worst_asr": max(row["asr"] for row in bad)} if bad else {}),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--defenses", default="patch_unlearning,sau,fine_tune")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = json.loads(options.rows.read_text()) if options.rows and options.rows.exists() else []
    for case in CASES:
        done = {row["defense"] for row in rows if row["model"] == case.name}
        wanted = [name for name in options.defenses.split(",") if name not in done]
        if options.only not in case.name or not wanted:
            continue
        data = load(case.data)
        clean = curated(data.clean, data.classes, data.name).visible()
        model = trained(case, data)
        before = measured(case, model, data)
        for name in wanted:
            rows.append(repaired(case, model, before, name, clean, data))
            print({key: value for key, value in rows[-1].items() if key != "parameters"}, flush=True)
            if options.rows:
                options.rows.write_text(json.dumps(rows))
    table = summary(rows)
    print(json.dumps(table, indent=1))
    if not options.only:
        result = {"summary": table, "repair_seed": REPAIR_SEED, "epochs": EPOCHS, "poisoning_rate": RATE,
                  "threads": options.threads, "rows": rows}
        print(write("purify-small", result, f"# Defenses on small models\n\n{__doc__}"))


if __name__ == "__main__":
    main()
