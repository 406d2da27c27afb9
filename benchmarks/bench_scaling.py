"""How many workers a number of models a day needs, and what breaks first.

One run of the real service is counted, the times of stages come from records, and a discrete-event
simulation finds the fewest scan workers with which uploads wait for under an hour (p95).
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import record
from benchmarks.scaling import report, sizing
from benchmarks.scaling.costs import sizes
from benchmarks.scaling.measure import measured
from benchmarks.scaling.model import DAY, Load, Plant, erlang_wait, simulate

QUEUES = ((1, 0.5), (3, 0.8), (10, 0.8))
WHOLE, FINER = 100_000, 5  # a day, simulated so many times as large as for the table
NAME = "scaling"
PLOT = "workers.png"


def main() -> None:
    """Count, simulate and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--measured", type=Path, help="JSON of benchmarks.scaling.measure, made before"
    )
    parser.add_argument("--note", default="not described", help="about the machine, for the record")
    given = parser.parse_args()
    counted = json.loads(given.measured.read_text()) if given.measured else measured()
    result = found(counted, given.note)
    folder = record.write(NAME, result, report.page(result))
    plot(result, folder / PLOT)
    record.write_plots(folder, [PLOT])
    print(folder)


def found(counted: dict[str, Any], note: str) -> dict[str, Any]:
    """Everything that the record has."""
    known = sizes()
    cases = [
        sizing.Case(size=size, per_day=per_day, measured=counted)
        for size in known
        for per_day in sizing.VOLUMES
    ]
    rows = []
    for case in cases:
        rows.append(sizing.sized(case))
        print(
            json.dumps(
                {name: rows[-1][name] for name in ("size", "per_day", "workers", "wait_p95")}
            )
        )
    whole = next(
        place for place, case in enumerate(cases) if case.per_day == WHOLE and case.size.measured
    )
    return {
        "about": __doc__.strip(),
        "note": note,
        "sizes": [
            {
                "name": case.size.name,
                "machine": case.size.machine,
                "weights": case.size.weights,
                "measured": case.size.measured,
                "means": case.means(),
                "source": case.size.source,
            }
            for case in cases[:: len(sizing.VOLUMES)]
        ],
        "cases": rows,
        "measured": counted,
        "checks": checks(rows, cases[whole], rows[whole]),
        "assumptions": sizing.assumptions(),
    }


def checks(rows: list[dict[str, Any]], case: sizing.Case, row: dict[str, Any]) -> dict[str, Any]:
    """What the simulation is held against."""
    theory = []
    for workers, use in QUEUES:
        per_day = 8000.0
        seconds = use * workers * DAY / per_day
        one = Plant(
            queue_of={"stage": "queue"},
            workers={"queue": workers},
            seconds={"stage": lambda rng, mean=seconds: rng.expovariate(1 / mean)},  # type: ignore[misc]
        )
        load = Load(per_day=per_day, kinds={"any": (1.0, ("stage",))})
        waits = [scan.waited for scan in simulate(load, one, seed=1, days=4.0).done]
        theory.append(
            {
                "workers": workers,
                "use": use,
                "theory": erlang_wait(per_day / DAY, seconds, workers),
                "simulated": fmean(waits),
            }
        )
    finer = FINER * sizing.SIMULATED
    large = sizing.run(case, row["workers"], sizing.SEEDS[0], simulated=finer)
    kept = {name: sum(line[name] for line in rows) for name in ("done", "open", "given_up")}
    arrived = sum(line["uploads_simulated"] for line in rows)
    if arrived != sum(kept.values()):
        raise ArithmeticError(f"{arrived} uploads, and {kept}")
    return {
        "theory": theory,
        "conservation": {"arrived": arrived, **kept},
        "runs": len(rows),
        "whole": {
            "size": case.size.name,
            "per_day": case.per_day,
            "simulated": finer,
            "wait_p95": large.wait(sizing.QUANTILE),
            "in_small": row["wait_p95"],
        },
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Scan workers by models a day."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for size in result["sizes"]:
        rows = [case for case in result["cases"] if case["size"] == size["name"]]
        axes.loglog(
            [case["per_day"] for case in rows],
            [case["workers"]["scan"] for case in rows],
            "o-" if size["measured"] else "o--",
            label=f"{size['name']} ({size['machine']})",
        )
    axes.set_xlabel("models a day")
    axes.set_ylabel("scan workers")
    axes.set_title("Scan workers for waiting p95 under an hour; dashed: times stated, not measured")
    axes.title.set_fontsize(9)
    axes.legend(fontsize=7)
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    record.save_plot(figure, path)


if __name__ == "__main__":
    main()
