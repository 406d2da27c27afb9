"""The effect of each defense on a zoo's models: ACC, ASR, RA, DER, worst class, time, memory.

    python -m benchmarks.bench_purify --zoo DIR [--data-dir DIR] [--defenses a,b,tournament]
        [--fractions 0.05] [--seeds 0] [--only TEXT] [--detected RECORD] [--sample N] [--honest N]
        [--policy P] [--jobs N] [--device D]

Every defense has its default parameters and gets the model, a number of clean images as a share of
the training set, and a seed; `policy-2` is the policy's second defense with its parameters there,
after those that it builds on. ASR is that of the attacker's own trigger on the zoo's test part.
Backdoored models that do not work are left out; honest ones are repaired too, to measure what a
defense costs a model that needed none. `tournament` is `guard purify` by the policy, which detects
first. `--detected` takes only the backdoored models that a record of bench_detect rejected, which
are those that the guard repairs; `--sample` takes so many of the models, drawn by a fixed seed, and
`--honest` adds so many honest models, drawn likewise. Results are kept in
DIR/<model>/purify-*.json, an interrupted run continues, and `--done` makes the record of the
results that exist. The plots need matplotlib.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from benchmarks import record, zoo
from benchmarks.purify import numbers, plots, report, running
from benchmarks.purify.running import TOURNAMENT, Task
from guard.core.modality import Modality
from guard.defenses import DEFENSES
from guard.policy import load_policy

#: Too large for a summary: bulk, and the table by attack, which the record's page has.
UNSUMMED = ("rows", "attacks")


def main() -> None:
    options = _options()
    policy = load_policy(options.policy)
    models = chosen(zoo.load(options.zoo), options)
    tasks = [
        Task(
            folder=model.folder,
            defense=name,
            fraction=fraction,
            seed=seed,
            policy=policy,
            data_dir=options.data_dir,
            device=options.device,
        )
        for fraction in options.fractions
        for seed in options.seeds
        for name in options.defenses.split(",")
        for model in models
    ]
    finished = (
        [row for task in tasks if (row := running.done(task)) is not None] if options.done else None
    )
    found, started = [], time.monotonic()
    for row in running.rows(tasks, options.jobs) if finished is None else finished:
        found.append(row)
        spent = time.monotonic() - started
        print(
            f"{len(found)}/{len(tasks)} {row['model']} {row['defense']}: {_short(row)}; "
            f"{spent:.0f} s, about "
            f"{spent / len(found) * (len(tasks) - len(found)):.0f} s left",
            flush=True,
        )
    result = evaluate(found) | {
        "zoo": options.zoo.resolve().name,
        "only": options.only,
        "detected": options.detected and options.detected.name,
        "sample": options.sample,
        "honest": options.honest,
        "models": [model.name for model in models],
        "seeds": options.seeds,
        "policy": policy.to_dict(),
        "device": options.device or "default",
        "note": options.note,
        "parameters": {
            task.defense: [
                {"defense": type(method).__name__, **method.parameters()}
                for method in task.methods()
            ]
            for task in tasks
            if task.defense != TOURNAMENT
        },
    }
    print(write(options.name, result))


def chosen(models: list[zoo.ZooModel], options: argparse.Namespace) -> list[zoo.ZooModel]:
    """The models that the options ask for, by name."""
    some = [
        model
        for model in models
        if options.only in model.name and (model.truth["works"] or not model.truth["backdoored"])
    ]
    honest = [model for model in some if not model.truth["backdoored"]]
    if options.honest is not None:
        some = [model for model in some if model.truth["backdoored"]]
    if options.detected is not None:
        rows = json.loads((options.detected / record.ROWS).read_text())
        accused = {
            row["name"]
            for row in rows
            if row["backdoored"] and row["rules"]["verdict"] == "rejected"
        }
        some = [model for model in some if model.name in accused]
    some = drawn(some, options.sample)
    if options.honest is not None:
        some = sorted([*some, *drawn(honest, options.honest)], key=lambda model: model.name)
    return some


def drawn(models: list[zoo.ZooModel], count: int | None) -> list[zoo.ZooModel]:
    """`count` of the models, the same ones each time; all if there are no more."""
    if count is None or count >= len(models):
        return models
    return sorted(random.Random(0).sample(models, count), key=lambda model: model.name)


def evaluate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tables and the rows themselves, in a fixed order."""
    rows = sorted(
        rows, key=lambda row: (row["defense"], row["fraction"], row["seed"], row["model"])
    )
    return {
        "summary": numbers.summary(rows),
        "against": numbers.against(rows),
        "tournament": numbers.beside(rows, TOURNAMENT),
        "attacks": numbers.attacks(rows),
        "rows": rows,
    }


def write(name: str, result: dict[str, Any]) -> Path:
    """The record: summary.json, README.md, two plots; its rows are kept from git."""
    summed = {key: value for key, value in result.items() if key not in UNSUMMED}
    text = f"# Defenses on a zoo\n\n{__doc__}\n{report.page(result)}\n"
    folder = record.write(name, summed, text)
    record.write_bulk(folder, record.ROWS, result["rows"])
    record.write_plots(folder, plots.draw(folder, result["rows"]))
    return folder


def _short(row: dict[str, Any]) -> str:
    if "failed" in row:
        return str(row["failed"])
    if row["after"] is None:
        return f"nothing served ({row.get('verdict')})"
    asr = (
        ""
        if row["after"]["asr"] is None
        else f"ASR {row['before']['asr']:.1%} -> {row['after']['asr']:.1%}, "
    )
    return f"{asr}ACC {row['before']['acc']:.1%} -> {row['after']['acc']:.1%}, {row['seconds']} s"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--defenses", default=",".join([*DEFENSES.of(Modality.IMAGES), TOURNAMENT]))
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--detected", type=Path)
    parser.add_argument("--sample", type=int)
    parser.add_argument(
        "--honest",
        type=int,
        help="add this many honest models to those of --detected and --sample",
    )
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument(
        "--done",
        action="store_true",
        help="only make the record of the results that exist already",
    )
    parser.add_argument("--name", default="purify")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    return parser.parse_args()


if __name__ == "__main__":
    main()
