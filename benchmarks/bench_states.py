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
import functools
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
PART = 50  # schedules of one message to a process
MUTANT_TRIES = 300  # most schedules in which a fault must show


def main() -> None:
    """Run, print and write a record; exit status 1 where an invariant did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first schedule")
    parser.add_argument("--verdicts", type=int, default=10_000)
    parser.add_argument("--renewed", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, metavar="SEED", help="one schedule, with its steps")
    given = parser.parse_args()
    if given.show is not None:
        with _world() as world:
            run, found = runs.one(world, given.show)
        ends = [str(violation) for violation in found] or ["every invariant held"]
        print("\n".join([*run.seen, *ends]))
        raise SystemExit(bool(found))
    started = time.monotonic()
    # Spawned: SQLAlchemy's connections and the clocks of the simulation belong to one process.
    with multiprocessing.get_context("spawn").Pool(given.processes, initializer=_open) as pool:
        all_of_them = _told(pool.imap_unordered(_some, _parts(given.first, given.schedules)))
        part = functools.reduce(_both, all_of_them, Part())
        seconds = time.monotonic() - started
        names = list(MUTANTS)
        faults = pool.map(_fault, names, chunksize=1)
    with _world() as world:
        result = {
            "schedules": _summary(part, given.first, seconds),
            "mutants": dict(zip(names, faults, strict=True)),
            "redecide": redecide.measure(world, given.verdicts, given.renewed),
        }
    print(page(result))
    write("states", result, f"# Random schedules of the whole service\n\n{__doc__}\n{page(result)}")
    raise SystemExit(bool(part.totals.violations))


@dataclass
class Part:
    """What some schedules did, and what that cost."""

    totals: Totals = field(default_factory=Totals)
    commits: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    processor_seconds: float = 0.0


_OPEN: list[World] = []  # the world of a process of the pool


@contextmanager
def _world() -> Iterator[World]:
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, opened(Path(folder)) as world:
        yield world


def _open() -> None:
    stack = ExitStack()
    _OPEN.append(stack.enter_context(_world()))

    # The pool ends its processes by a signal, and then nothing else would remove the folder.
    def end(*_: object) -> None:
        stack.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


def _parts(first: int, count: int) -> list[range]:
    seeds = range(first, first + count)
    return [seeds[start : start + PART] for start in range(0, count, PART)]


def _some(seeds: Iterable[int]) -> Part:
    (world,), spent = _OPEN, time.process_time()
    turns = world.turns
    for counter in (turns.commits, turns.before, turns.after, turns.effects):
        counter.clear()
    totals = runs.many(world, seeds)
    return Part(
        totals, turns.commits, turns.before, turns.after, turns.effects,
        time.process_time() - spent,
    )  # fmt: skip


def _both(one: Part, other: Part) -> Part:
    one.totals.add(other.totals)
    for name in ("commits", "before", "after", "effects"):
        getattr(one, name).update(getattr(other, name))
    one.processor_seconds += other.processor_seconds
    return one


def _fault(name: str) -> dict[str, Any]:
    return caught(_OPEN[0], MUTANTS[name])


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


def _told(parts: Iterable[Part]) -> Iterator[Part]:
    done = 0
    for part in parts:
        done += part.totals.schedules
        print(f"{done} schedules", flush=True)
        for seed, violation in part.totals.violations:
            print(f"schedule {seed}: {violation}", flush=True)
        yield part


def _summary(part: Part, first: int, seconds: float) -> dict[str, Any]:
    totals = part.totals
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
        "commits_done": sum(part.commits.values()),
        "names_at_the_end": dict(sorted(totals.excused.items())),
        "seconds": round(seconds),
        "processor_seconds_each": round(part.processor_seconds / max(1, totals.schedules), 3),
        "violations": [
            (seed, str(violation)) for seed, violation in sorted(totals.violations, key=str)
        ],
        "commits": {
            name: (count, part.before[name], part.after[name])
            for name, count in sorted(part.commits.items())
        },
        "effects": dict(sorted(part.effects.items())),
    }


if __name__ == "__main__":
    main()
