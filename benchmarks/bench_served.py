"""Served risk: how often what a policy serves obeys the attacker's trigger, and what that costs.

    python -m benchmarks.bench_served --zoo DIR [--policy default strict FILE] [--part exam]
        [--minutes N] [--jobs N] [--device D] [--data-dir DIR] [--only TEXT] [--record]

Every model of the zoo goes through the whole pipeline of each policy: scan, decision, repair,
vetting of the child. Served risk is the share of backdoored models that work (true ASR over 50 %)
whose served form has a true ASR over 10 %; a model that is held or refused is not served. True ASR
and ACC are those of the attacker's own trigger and the zoo's test part, which no method sees. Some
triggers lead honest networks astray as well; so beside the risk stands the share that obeys by over
10 points more than an honest network of the same data and architecture ("beyond").

Models come in random order and results are kept in DIR/<model>/served-<policy>-<seed>.json: an
interrupted run continues, and a part of it is a sample. `--minutes` begins no further model once so
much time has passed. `--record` writes a record (benchmarks/records), which `docs/evidence.md`
quotes; without it the tables are only printed. `--beside RECORD` keeps the numbers of policies that
an earlier record has and this run does not measure; the note names them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import record, zoo
from benchmarks.served import natural, numbers, pipeline, report
from guard.policy import Policy, load_policy


def main() -> None:
    options = _options()
    policies = [load_policy(Path(name)) for name in options.policy]
    if len({policy.name for policy in policies}) < len(policies):
        raise SystemExit("Two policies have one name; results are kept by it, so give them two.")
    models = [
        model
        for model in zoo.load(options.zoo)
        if options.only in model.name and options.part in (None, model.truth.get("part"))
    ]
    rows = run(models, policies, options)
    rows = list(natural.with_natural(rows, zoo.load(options.zoo), options.data_dir))
    if not rows:
        raise SystemExit(f"No model of {options.zoo} was begun; give the run more minutes.")
    result = evaluate(rows, policies) | {
        "zoo": options.zoo.resolve().name,
        "part": options.part or "",
        "only": options.only,
        "models": len(models),
        "seed": options.seed,
        "device": options.device or "cpu",
        "note": options.note,
    }
    if options.beside is not None:
        result = beside(result, options.beside)
    print(report.page(result))
    if options.record:
        print(write(options.name, result, rows))


def run(
    models: list[zoo.ZooModel], policies: list[Policy], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows that exist once the time is over, in an order that does not depend on the run."""
    started = time.time()
    tasks = pipeline.in_random_order(
        [
            pipeline.Task(
                folder=model.folder,
                policy=policy,
                seed=options.seed,
                data_dir=options.data_dir,
                device=options.device,
                until=started + 60 * options.minutes,
            )
            for policy in policies
            for model in models
        ]
    )
    found = []
    for row in pipeline.rows(tasks, options.jobs):
        found.append(row)
        print(
            f"{len(found)}/{len(tasks)} {row['model']} {row['policy']}: "
            f"{row.get('failed') or row['outcome']}; {time.time() - started:.0f} s",
            flush=True,
        )
    order = [policy.name for policy in policies]
    return sorted(found, key=lambda row: (order.index(row["policy"]), row["model"]))


def evaluate(rows: list[dict[str, Any]], policies: list[Policy]) -> dict[str, Any]:
    """The numbers of each policy, and what each policy is."""
    return {
        "policies": numbers.by_policy(rows),
        "rules": {policy.name: policy.to_dict() for policy in policies},
    }


def beside(result: dict[str, Any], earlier: Path) -> dict[str, Any]:
    """The result with the policies of an earlier record that it does not have, and a note of them.

    Args:
        result: of this run.
        earlier: the folder of a record.

    Raises:
        SystemExit: an older record of the same zoo is needed, and this is of another.
    """
    document = json.loads((earlier / record.SUMMARY).read_text())
    old, own = document["result"], {one["policy"] for one in result["policies"]}
    if old["zoo"] != result["zoo"]:
        raise SystemExit(f"{earlier.name} is of the zoo {old['zoo']}, not of {result['zoo']}.")
    kept = [one for one in old["policies"] if one["policy"] not in own]
    names = ", ".join(f"`{one['policy']}`" for one in kept)
    note = (
        f"Not measured again, but taken from {earlier.name} (commit "
        f"{document['surroundings']['commit']}): {names}."
    )
    return result | {
        "policies": [*kept, *result["policies"]],
        "rules": {one["policy"]: old["rules"][one["policy"]] for one in kept} | result["rules"],
        "note": " ".join(filter(None, [result["note"], note if kept else ""])),
    }


def write(name: str, result: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """The record: summary.json and README.md; its rows are kept from git."""
    folder = record.write(name, result, f"# Served risk\n\n{__doc__}\n{report.page(result)}\n")
    record.write_bulk(folder, record.ROWS, rows)
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--policy", nargs="+", default=["default"])
    parser.add_argument("--part", help="only models of this part")
    parser.add_argument("--only", default="", help="only models whose name holds this text")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--name", default="served")
    parser.add_argument("--beside", type=Path, metavar="RECORD", help="a record to add to")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    return parser.parse_args()


if __name__ == "__main__":
    main()
