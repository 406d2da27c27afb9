"""The metrics of `guard.store.watched`, and those that workers counted."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from guard import __version__
from guard.core.queues import QUEUE_OF
from guard.core.tallies import (
    DETECTOR_ERRORS,
    FAMILIES,
    INFINITE,
    LE,
    Family,
    Key,
)
from guard.flow.watch import Look
from guard.store.watched import CanaryState, Line

ERROR_KINDS = ("could_not_look", "crash")
#: Alarms that something is served which may not be; `guard.flow.reconcile` opens them.
VETTED = frozenset({"serving_republished", "serving_missing"})

Labels = tuple[tuple[str, str], ...]


def families(look: Look) -> Iterable[Metric]:
    """All of them, in order; no name but a detector's of the policies in force becomes a label."""
    watched, now = look.watched, look.at
    build = GaugeMetricFamily("guard_build_info", "1, with the release.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    yield from _work(watched.lines, now)
    yield _gauge(
        "guard_scan_running_oldest_seconds",
        "Age of the oldest scan that has not ended; 0 without one.",
        _age(watched.oldest_scan, now),
    )
    yield from _canaries(watched.canaries, look.detectors)
    yield _gauge("guard_served", "Artifacts that are given to serving.", watched.served)
    yield _gauge(
        "guard_served_behind",
        "Those of them whose verdict was given under another policy than one in force.",
        watched.behind,
    )
    yield _gauge(
        "guard_served_unvetted",
        "Open alarms that something was served which may not be; must be 0.",
        sum(
            number
            for kind, number in look.counts.alarms.items()
            if kind.startswith("serving_") and kind not in VETTED
        ),
    )
    yield CounterMetricFamily(
        "guard_drift",
        "Deviations of what is served from what may be, ever found.",
        watched.deviations,
    )
    ending = GaugeMetricFamily(
        "guard_verdicts_ending",
        "Served artifacts whose verdict ends within so many days.",
        labels=["days"],
    )
    for days, number in watched.ending.items():
        ending.add_metric([str(days)], number)
    yield ending
    yield _gauge("guard_waiver_active", "Waivers in force.", look.waivers)
    yield _gauge(
        "guard_checkpoint_timestamp_seconds",
        "When the newest checkpoint of the ledger was written, since 1970; 0 without one.",
        0.0 if watched.checkpoint is None else watched.checkpoint.timestamp(),
    )
    zeros: dict[Key, float] = {
        (f"{DETECTOR_ERRORS.name}_total", (("detector", name), ("kind", kind))): 0.0
        for name in look.detectors
        for kind in ERROR_KINDS
    }
    yield from counted({**zeros, **watched.counted})


def counted(values: Mapping[Key, float]) -> Iterable[Metric]:
    """Counters and histograms of what workers counted; each family, also without a value."""
    by_name: dict[str, dict[Labels, float]] = defaultdict(dict)
    for (name, labels), value in values.items():
        by_name[name][labels] = value
    for family in FAMILIES:
        yield _histogram(family, by_name) if family.bounds else _counter(family, by_name)


def _counter(family: Family, values: Mapping[str, Mapping[Labels, float]]) -> Metric:
    made = CounterMetricFamily(family.name, family.help, labels=list(family.labels))
    for labels, value in sorted(values.get(f"{family.name}_total", {}).items()):
        made.add_metric([text for _, text in labels], value)
    return made


def _histogram(family: Family, values: Mapping[str, Mapping[Labels, float]]) -> Metric:
    made = HistogramMetricFamily(family.name, family.help, labels=list(family.labels))
    ends = [*map(str, family.bounds), INFINITE]
    found: dict[Labels, dict[str, float]] = defaultdict(dict)
    for labels, value in values.get(f"{family.name}_bucket", {}).items():
        found[labels[:-1]][dict(labels)[LE]] = value
    sums = values.get(f"{family.name}_sum", {})
    for labels, counts in sorted(found.items()):
        total, buckets = 0.0, []
        for end in ends:
            total += counts.get(end, 0.0)
            buckets.append((end, total))
        made.add_metric([text for _, text in labels], buckets, sums.get(labels, 0.0))
    return made


def _work(lines: Mapping[str, Line], now: datetime) -> Iterable[GaugeMetricFamily]:
    labels = ["queue", "stage"]
    depth = GaugeMetricFamily(
        "guard_queue_depth",
        "Uploads, scans and jobs that wait for a stage and that no worker holds. A scan in purify "
        "also waits while its candidate is vetted.",
        labels=labels,
    )
    oldest = GaugeMetricFamily(
        "guard_queue_oldest_seconds",
        "For how long the oldest of them has waited; that of stage receive is the oldest upload "
        "that was not taken in.",
        labels=labels,
    )
    running = GaugeMetricFamily(
        "guard_stage_running", "Scans and jobs that a worker holds, by stage.", labels=labels
    )
    for stage, line in lines.items():
        values = [QUEUE_OF[stage], stage]
        depth.add_metric(values, line.waiting)
        oldest.add_metric(values, _age(line.oldest, now))
        running.add_metric(values, line.running)
    return depth, oldest, running


def _canaries(state: CanaryState, detectors: Collection[str]) -> Iterable[GaugeMetricFamily]:
    ok = GaugeMetricFamily(
        "guard_canary_ok",
        "1 where a detector passed in the newest canary of every worker of the last two days.",
        labels=["detector"],
    )
    for name in sorted(set(state.passed) & set(detectors)):
        ok.add_metric([name], state.passed[name])
    yield ok
    yield _gauge(
        "guard_canary_workers", "Workers that ran a canary in the last two days.", state.workers
    )
    yield _gauge(
        "guard_canary_timestamp_seconds",
        "When the newest canary ran, since 1970; 0 where none did in the last two days.",
        0.0 if state.last is None else state.last.timestamp(),
    )


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
