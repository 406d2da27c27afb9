"""Metrics in Prometheus' text format, from the database; only events are counted in the process.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from guard.core.states import ScanState, Verdict
from guard.store.counts import Counts
from guard.store.rows import NominationState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EVENT_OUTCOMES = ("accepted", "unauthorised", "refused", "failed")


class EventCounter:
    """How events ended since this process started."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, outcome: str) -> None:
        """Count one event; `outcome` is one of EVENT_OUTCOMES."""
        with self._lock:
            self._counts[outcome] += 1

    def taken(self) -> dict[str, int]:
        """All counts at one time, zeros included.

        A series that appears late cannot be alarmed on.
        """
        with self._lock:
            return {outcome: self._counts[outcome] for outcome in EVENT_OUTCOMES}


def text(counts: Counts, events: Mapping[str, int], now: datetime) -> str:
    """The whole page."""
    waited = (
        0.0 if counts.oldest_due is None else max(0.0, (now - counts.oldest_due).total_seconds())
    )
    lines: list[str] = []
    lines += _family(
        "guard_scans", "gauge", "Scans by state.", "state", _all(ScanState, counts.scans)
    )
    lines += _family(
        "guard_nominations",
        "gauge",
        "Nominations by state.",
        "state",
        _all(NominationState, counts.nominations),
    )
    lines += _family(
        "guard_verdict_total",
        "counter",
        "Verdicts in the ledger.",
        "verdict",
        _all(Verdict, counts.verdicts),
    )
    lines += _family(
        "guard_webhook_total", "counter", "Events received by this process.", "outcome", events
    )
    lines += _single(
        "guard_outbox_unsent",
        "gauge",
        "Messages that were not handed to the broker.",
        counts.unsent,
    )
    lines += _single(
        "guard_outbox_oldest_seconds", "gauge", "Age of the oldest message that is due.", waited
    )
    lines += _single(
        "guard_dead_letters", "gauge", "Messages nobody could handle.", counts.dead_letters
    )
    lines += _single(
        "guard_alarms_open", "gauge", "Alarms nobody cleared.", sum(counts.alarms.values())
    )
    lines += _family(
        "guard_alarms_open_by_kind",
        "gauge",
        "Alarms nobody cleared, by kind.",
        "kind",
        counts.alarms,
    )
    return "\n".join(lines) + "\n"


def _all(kinds: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {str(kind): counts.get(str(kind), 0) for kind in kinds}


def _family(name: str, kind: str, about: str, label: str, values: Mapping[str, int]) -> list[str]:
    rows = [f'{name}{{{label}="{_escaped(key)}"}} {value}' for key, value in values.items()]
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *rows]


def _single(name: str, kind: str, about: str, value: float) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", f"{name} {value}"]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
