"""Prometheus metrics, read from the database; only events are counted in the process.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import Counter, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from guard.api import watched_metrics
from guard.core.states import ScanState, Verdict
from guard.flow.watch import Look
from guard.store.rows import NominationState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
EVENT_OUTCOMES = ("accepted", "unauthorised", "refused", "failed")

# Omit the extra series with the start time of each counter, which nothing here reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class EventCounter(Collector):
    """Counts of events by outcome since this process started."""

    def __init__(self) -> None:
        # No registry: two applications in one process, as in tests, count separately.
        self._counter = Counter(
            "guard_webhook", "Events received by this process.", ["outcome"], registry=None
        )
        # A series that appears only later cannot be used for an alarm, so each starts at zero.
        for outcome in EVENT_OUTCOMES:
            self._counter.labels(outcome)

    def add(self, outcome: str) -> None:
        """Count one event; `outcome` is one of EVENT_OUTCOMES."""
        self._counter.labels(outcome).inc()

    def collect(self) -> Iterable[Metric]:
        """The counts of all outcomes, zeros included."""
        return self._counter.collect()


def page(look: Look, events: EventCounter) -> bytes:
    """The whole metrics page, in UTF-8."""
    return generate_latest(_Page(look, events))


class _Page(Collector):
    """The metrics of one answer, in order."""

    def __init__(self, look: Look, events: EventCounter) -> None:
        self._look, self._events = look, events

    def collect(self) -> Iterable[Metric]:
        counts = self._look.counts
        yield _gauges("guard_scans", "Scans by state.", "state", _all(ScanState, counts.scans))
        yield _gauges(
            "guard_nominations",
            "Nominations by state.",
            "state",
            _all(NominationState, counts.nominations),
        )
        # Counted in the database, so that a restart of the process does not reset it.
        verdicts = CounterMetricFamily(
            "guard_verdict", "Verdicts in the ledger.", labels=["verdict"]
        )
        for verdict, number in _all(Verdict, counts.verdicts).items():
            verdicts.add_metric([verdict], number)
        yield verdicts
        yield from self._events.collect()
        yield GaugeMetricFamily(
            "guard_outbox_unsent", "Messages that were not handed to the broker.", counts.unsent
        )
        yield GaugeMetricFamily(
            "guard_outbox_oldest_seconds",
            "Age of the oldest message that is due.",
            _waited(counts.oldest_due, self._look.at),
        )
        yield GaugeMetricFamily(
            "guard_dead_letters", "Messages nobody could handle.", counts.dead_letters
        )
        yield GaugeMetricFamily(
            "guard_alarms_open", "Alarms nobody cleared.", sum(counts.alarms.values())
        )
        yield _gauges(
            "guard_alarms_open_by_kind", "Alarms nobody cleared, by kind.", "kind", counts.alarms
        )
        yield GaugeMetricFamily(
            "guard_verdicts_expiring",
            "Served artifacts whose verdict ends within the policy's time for a re-scan.",
            counts.expiring,
        )
        yield GaugeMetricFamily(
            "guard_verdicts_expired", "Served artifacts whose verdict has ended.", counts.expired
        )
        yield GaugeMetricFamily(
            "guard_gate_warns", "1 where the policy's gate only warns, else 0.", self._look.warns
        )
        yield GaugeMetricFamily(
            "guard_let_through",
            "Served models that an enforcing gate would refuse.",
            self._look.let_through,
        )
        yield from watched_metrics.families(self._look)


def _waited(oldest_due: datetime | None, now: datetime) -> float:
    return 0.0 if oldest_due is None else max(0.0, (now - oldest_due).total_seconds())


def _all(kinds: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {str(kind): counts.get(str(kind), 0) for kind in kinds}


def _gauges(name: str, about: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
