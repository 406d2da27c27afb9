"""How many workers it takes, and what database, broker and storage see then."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scaling import HONEST
from benchmarks.scaling.costs import WEIGHT_BYTES, Size, stage_seconds
from benchmarks.scaling.model import DAY, HOUR, Load, Patience, Plant, Seen, simulate
from guard.core.queues import QUEUE_OF
from guard.settings import Settings, load_settings

VOLUMES = (1_000, 100_000, 1_000_000)
#: The aim, of waiting alone: p95 of the seconds that an upload stands in queues.
MOST_WAITING, QUANTILE = HOUR, 0.95
#: Uploads of a day that are simulated; more are simulated as a smaller service with as much to do
#: for each worker, in which everybody waits a little longer.
SIMULATED = 2_000
SEEDS = (1, 2)
SWING, BURSTS, BURST = 0.6, 0.2, 50
LIFE, RESTART = DAY, 60.0
#: Shares of uploads, stated; of a repair's candidate the second look is part of the row.
KINDS: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "cleared": (0.90, ("receive", "inspect", "detect", "decide", "publish")),
    "held": (0.04, ("receive", "inspect", "detect", "decide")),
    "unvettable": (0.05, ("receive", "inspect", "decide")),
    "repaired": (
        0.01,
        (
            *("receive", "inspect", "detect", "decide"),
            *("purify", "detect", "decide", "publish"),
        ),
    ),
}
FULL = 0.9  # of what one process can do in a second
HOP = 0.05  # the relay's pause
COPIES = 4  # of weights: intake bucket, upload, canonical file, published archive
DEPLOYED = 2  # processes of the worker `publish,control` in compose, chart and `guard up`
RECONCILE_TIMES = 2  # a period that reconcile may be late


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of models, so many a day."""

    size: Size
    per_day: int
    measured: Mapping[str, Any]

    @property
    def load(self) -> Load:
        """What arrives."""
        return Load(per_day=self.per_day, swing=SWING, bursts=BURSTS, burst=BURST, kinds=KINDS)

    def plant(self, workers: Mapping[str, int]) -> Plant:
        """The service with these workers, at its default settings."""
        settings = defaults()
        return Plant(
            queue_of=QUEUE_OF,
            workers=workers,
            seconds=stage_seconds(self.size),
            duplicate=self.measured["parts"]["duplicate"],
            lease=settings.lease_seconds,
            life=LIFE,
            restart=RESTART,
            hop=HOP,
        )

    def offered(self) -> dict[str, float]:
        """Processes that are busy on average at the peak, by queue."""
        found: dict[str, float] = defaultdict(float)
        means = self.means()
        for share, stages in KINDS.values():
            for stage in stages:
                found[QUEUE_OF[stage]] += share * self.load.peak * means[stage]
        return dict(found)

    def means(self) -> dict[str, float]:
        """Mean seconds of each stage."""
        import random

        rng = random.Random(0)
        draws = stage_seconds(self.size)
        return {
            stage: math.fsum(draw(rng) for _ in range(2000)) / 2000 for stage, draw in draws.items()
        }


def defaults() -> Settings:
    """The settings of a guard that was given none."""
    return load_settings({})


def shrunk(load: Load, plant: Plant, by: float) -> tuple[Load, Plant]:
    """A service of 1/by of the size, where each worker has as much to do.

    Where a queue has too few workers to be divided, they are made slower instead.
    """
    workers, slower = {}, {}
    for queue, count in plant.workers.items():
        workers[queue] = max(round(count / by), 1)
        slower[queue] = workers[queue] * by / count
    seconds = {
        stage: _slowed(draw, slower[plant.queue_of[stage]]) for stage, draw in plant.seconds.items()
    }
    return (
        replace(load, per_day=load.per_day / by, burst=max(round(load.burst / by), 1)),
        replace(plant, workers=workers, seconds=seconds),
    )


def _slowed(draw: Any, times: float) -> Any:
    return lambda rng: times * draw(rng)


def run(case: Case, workers: Mapping[str, int], seed: int, simulated: int = SIMULATED) -> Seen:
    """Simulate a day, in small where it is large, and half a day more to finish."""
    by = max(case.per_day / simulated, 1.0)
    load, plant = shrunk(case.load, case.plant(workers), by)
    most = Patience(MOST_WAITING, 1.2 * (1 - QUANTILE) * load.per_day)
    return simulate(load, plant, seed=seed, after=DAY / 2, patience=most)


def sized(case: Case) -> dict[str, Any]:
    """The fewest scan workers that keep the aim, and what everything sees then."""
    offered = case.offered()
    workers = {queue: max(math.ceil(use / FULL), 1) for queue, use in offered.items()}
    mean = offered["scan"] / (1 + SWING)
    low, high = max(math.floor(mean), 1), workers["scan"] + 2

    def keeps(count: int) -> bool:
        found = (run(case, {**workers, "scan": count}, seed) for seed in SEEDS)
        return all(not seen.cut_short and seen.wait(QUANTILE) <= MOST_WAITING for seen in found)

    while not keeps(high):
        low, high = high, math.ceil(1.2 * high) + 1
    step = max(round(high / 50), 1)  # as near as a fiftieth
    while high - low > step:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    workers["scan"] = high
    seen = run(case, workers, SEEDS[0])
    return {
        "size": case.size.name,
        "per_day": case.per_day,
        "workers": workers,
        "offered": offered,
        **_waits(seen),
        **_traffic(case, seen),
        "storage": _storage(case),
        "breaks": breaks(case, seen),
    }


def _waits(seen: Seen) -> dict[str, Any]:
    return {
        "uploads_simulated": len(seen.scans),
        "done": len(seen.done),
        "open": len(seen.open),
        "given_up": len(seen.failed),
        "wait_p50": seen.wait(0.5),
        "wait_p95": seen.wait(QUANTILE),
        "worker_deaths": seen.deaths,
    }


def _scale(case: Case, seen: Seen) -> float:
    """Real uploads for each simulated one."""
    return case.per_day / max(len(seen.scans), 1)


def _a_scan(case: Case, what: str) -> float:
    """What the mean upload writes, by the stages of its kind; a repair writes as a detection."""
    stages = case.measured[HONEST]
    return stages["nominate"][what] + math.fsum(
        share * stages["detect" if stage == "purify" else stage][what]
        for share, names in KINDS.values()
        for stage in names
    )


def _traffic(case: Case, seen: Seen) -> dict[str, Any]:
    """Writes and messages a second, on average and at the peak of the day."""
    scans, parts = case.per_day / DAY, case.measured["parts"]
    again = sum(seen.duplicates.values()) * _scale(case, seen) / DAY
    renewed = seen.renewals * _scale(case, seen) / DAY
    # A message of rescue: a row of the outbox, its scan touched, the message marked, a claim and a
    # release.
    written, commits = scans * _a_scan(case, "rows_written"), scans * _a_scan(case, "commits")
    messages = scans * _a_scan(case, "messages")
    return {
        "rows_written_a_second": written + 5 * again + renewed,
        "rows_written_at_peak": (1 + SWING) * (written + renewed) + 5 * again,
        "commits_a_second": commits + 3 * again + renewed,
        "messages_a_second": messages + again,
        "messages_at_peak": (1 + SWING) * messages + again,
        "announced_again_a_scan": again / scans,
        "broker_commands_a_second": (messages + again) * parts["commands_a_message"],
        "most_waiting": seen.most_waiting * _scale(case, seen),
    }


def _storage(case: Case) -> dict[str, float]:
    """Bytes a day."""
    looks = math.fsum(share * max(names.count("detect"), 1) for share, names in KINDS.values())
    return {
        "rows": case.per_day * looks * case.measured["row_bytes_a_scan"],
        "weights": float(case.per_day * COPIES * WEIGHT_BYTES * case.size.weights),
    }


def breaks(case: Case, seen: Seen) -> list[dict[str, Any]]:
    """How full each part is that there is one of, the fullest first; over 1 it falls behind."""
    parts, settings = case.measured["parts"], defaults()
    peak = case.load.peak
    waiting = seen.most_waiting * _scale(case, seen)
    again = sum(seen.duplicates.values()) * _scale(case, seen) / DAY
    messages = _a_scan(case, "messages") * peak + again
    late = RECONCILE_TIMES * settings.reconcile_seconds
    mean_open = sum(
        scan.ended - scan.arrived for scan in seen.done if scan.ended is not None
    ) / max(len(seen.done), 1)
    found = {
        "publish and control: the two processes that deployments have": (
            case.offered()["publish"] + case.offered()["control"]
        )
        / DEPLOYED,
        "relay: one process": messages * parts["relay_a_message"],
        "watch: rescue of all that waits, within twice a period of reconcile": waiting
        * parts["rescue_a_scan"]
        / late,
        "sweep: listing a bucket of 30 days within its period": 30
        * 2
        * case.per_day
        * parts["sweep_an_object"]
        / settings.sweep_seconds,
        "GUARD_SHARED_SCANS, where there are projects": peak * mean_open / settings.shared_scans,
        "commits, if all came by one connection": peak * _a_scan(case, "commits") * parts["commit"],
    }
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return [{"part": name, "use": use} for name, use in ordered]


def assumptions() -> list[str]:
    """What the simulation takes for granted."""
    shares = ", ".join(f"{100 * share:g} % {kind}" for kind, (share, _) in KINDS.items())
    lease = defaults().lease_seconds
    text = f"""
Uploads: {shares}. No record has what real users upload.
The rate swings by {100 * SWING:g} % about its mean over a day; {100 * BURSTS:g} % of uploads come
  {BURST} at once.
A worker dies {DAY / LIFE:g} times a day and stands again after {RESTART:g} s; a lease lasts
  {lease:g} s.
Receive, inspect, decide and publish are those of one upload on a quiet machine (record
  2026-11-21-overhead, TorchServe with one model; with many there is no record), and vary like an
  exponential about it. Bytes of weights are added at the rate of record 2026-11-21-intake: to
  receive once, to inspect and publish twice (no record of their own).
Over {SIMULATED:,} models a day, a smaller service is simulated whose workers have as much to do.
The queues `train` (by request alone) and `notify` (no destination) have no load; re-scans before
  verdicts end are bounded by GUARD_RESCAN_LIMIT and not counted.
No two uploads are of the same bytes, which would rest on one verdict.
A repair's stage writes as many rows as a detection; its candidate is a scan of its own.
Weights are kept {COPIES} times (intake bucket, upload, canonical file, published archive), and
  nothing is deleted.
"""
    return text.strip().replace("\n  ", " ").splitlines()
