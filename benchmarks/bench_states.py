"""The whole service under random schedules: does every invariant of docs/architecture.md hold?

Each schedule is drawn from its number: uploads, notices that come late, twice or not at all,
workers that overtake each other, processes that are killed before and after commits, clocks that
jump, re-scans, reviews, withdrawals, roll-backs, new keys. Only the work on models is made up
(`benchmarks/simulation/jobs.py`). After each step the invariants are checked against the database's
file and the folder that is served; at the end crashes stop, and all must come to rest as it should.
Then faults are put into the service, one at a time, and each must be found: a check that finds
nothing in a service without it would show nothing. Last, the time to decide anew about a large
registry.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.record import write
from benchmarks.simulation import redecide, runs
from benchmarks.simulation.mutants import MUTANTS, Mutant
from benchmarks.simulation.runs import Totals
from benchmarks.simulation.world import World, opened

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
COUNTS = (
    "schedules", "steps", "uploads", "scans", "verdicts", "releases", "processes_killed",
    "commits_done", "names_at_the_end", "verdict_kinds", "scan_ends", "seconds",
    "processor_seconds_each",
)  # fmt: skip
RENEWALS = (("another limit", "other_rule"), ("one more detector", "one_more_detector"))
MUTANT_TRIES = 300  # most schedules in which a fault must show


def main() -> None:
    """Run, print and write a record; exit status 1 where an invariant did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule")
    parser.add_argument("--verdicts", type=int, default=10_000)
    parser.add_argument("--renewed", type=int, default=100)
    parser.add_argument("--show", type=int, metavar="SEED", help="one schedule, with its steps")
    given = parser.parse_args()
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, opened(Path(folder)) as world:
        if given.show is not None:
            run, found = runs.one(world, given.show)
            ends = [str(violation) for violation in found] or ["every invariant held"]
            print("\n".join([*run.seen, *ends]))
            raise SystemExit(bool(found))
        started, spent = time.monotonic(), time.process_time()
        totals = runs.many(world, _told(range(given.first, given.first + given.schedules)))
        seconds = (time.monotonic() - started, time.process_time() - spent)
        result = {
            "schedules": _summary(world, totals, given.first, seconds),
            "mutants": {name: caught(world, one) for name, one in MUTANTS.items()},
            "redecide": redecide.measure(world, given.verdicts, given.renewed),
        }
    print(page(result))
    write("states", result, f"# Random schedules of the whole service\n\n{__doc__}\n{page(result)}")
    raise SystemExit(bool(totals.violations))


def caught(
    world: World, mutant: Mutant, first: int = 0, *, tries: int = MUTANT_TRIES
) -> dict[str, Any]:
    """In which schedule from `first` on a fault shows, and how."""
    for seed in range(first, first + tries):
        with ExitStack() as stack:
            for patch in mutant.patches():
                stack.enter_context(patch)
            _, found = runs.one(world, seed, theme=mutant.theme, prepare=mutant.prepare)
        for violation in found:
            if violation.number in mutant.numbers:
                return {"schedules": seed - first + 1, "found": str(violation)}
    return {"schedules": tries, "found": ""}


def page(result: Mapping[str, Any]) -> str:
    """All numbers as tables."""
    some, again = result["schedules"], result["redecide"]
    rows = [f"| {name} | {some[name]} |" for name in COUNTS]
    broken = [f"- schedule {seed}: {text}" for seed, text in some["violations"]] or ["None."]
    places = [
        f"| {name} | {commits} | {before} | {after} |"
        for name, (commits, before, after) in some["commits"].items()
    ]
    effects = [f"| {name} | {count} |" for name, count in some["effects"].items()]
    faults = [
        f"| {name} | {one['schedules']} | {one['found'] or '**not found**'} |"
        for name, one in result["mutants"].items()
    ]
    renewals = [
        f"| {what} | {again[key]['renewed']} | {again[key]['detector_jobs']} | "
        f"{again[key]['beat_s']} | {again[key]['each_ms']} |"
        for what, key in RENEWALS
    ]
    parts = (
        ("## Schedules", "| | |\n|---|---:|", rows),
        ("## Invariants that did not hold", "", broken),
        (
            "## Commits, and processes that were killed there",
            "| commit | done | killed before | killed after |\n|---|---:|---:|---:|",
            places,
        ),
        ("## Killed elsewhere", "| place | times |\n|---|---:|", effects),
        (
            "## Faults, and when they were found",
            "| fault | schedules until it was found | found as |\n|---|---:|---|",
            faults,
        ),
        (
            "## Deciding anew",
            (
                f"{again['verdicts']} stored verdicts, decided by another policy as `guard policy "
                f"simulate` does: {again['simulated_s']} s. What beat and one worker then renew of "
                "them, each with its signature, its release and its publication:\n\n"
                "| change of the policy | renewed | detector jobs | beat's look, s | each, ms |\n"
                "|---|---:|---:|---:|---:|"
            ),
            renewals,
        ),
    )
    return "\n\n".join(
        "\n".join(filter(None, (f"{title}\n", head, *lines))) for title, head, lines in parts
    )


def _told(seeds: Iterable[int]) -> Iterable[int]:
    for done, seed in enumerate(seeds):
        if done and done % 500 == 0:
            print(f"{done} schedules", flush=True)
        yield seed


def _summary(
    world: World, totals: Totals, first: int, seconds: tuple[float, float]
) -> dict[str, Any]:
    turns = world.turns
    return {
        "first": first,
        "schedules": totals.schedules,
        "steps": sum(totals.steps.values()),
        "by_step": dict(sorted(totals.steps.items())),
        "uploads": totals.uploads,
        "scans": sum(totals.ends.values()),
        "scan_ends": dict(sorted(totals.ends.items())),
        "verdicts": sum(totals.verdicts.values()),
        "verdict_kinds": dict(sorted(totals.verdicts.items())),
        "releases": totals.served,
        "processes_killed": totals.crashed,
        "commits_done": sum(turns.commits.values()),
        "names_at_the_end": dict(sorted(totals.excused.items())),
        "seconds": round(seconds[0]),
        "processor_seconds_each": round(seconds[1] / max(1, totals.schedules), 3),
        "violations": [(seed, str(violation)) for seed, violation in totals.violations],
        "commits": {
            name: (count, turns.before[name], turns.after[name])
            for name, count in sorted(turns.commits.items())
        },
        "effects": dict(sorted(turns.effects.items())),
    }


if __name__ == "__main__":
    main()
