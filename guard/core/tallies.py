"""What is counted while work is done, under the names that Prometheus shows.

Workers are many processes, are forked and are killed, so they do not keep counters: a piece of
work collects what it counted, and `guard.store.tallies` adds it to rows of the database once the
work is over. What was counted by a process that died before is lost, and nothing else is.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

#: Upper ends of the buckets of durations, in seconds; one without an end follows.
SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0)
#: The same of p values.
SHARES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LE, INFINITE = "le", "+Inf"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric: its name without suffix, help, labels, and the buckets of a histogram."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()


STAGES = Family(
    name="guard_scan_seconds",
    help="Seconds that one run of a stage took, by how it ended: done, given_up or error.",
    labels=("stage", "outcome"),
    bounds=SECONDS,
)
DETECTORS = Family(
    name="guard_detector_seconds",
    help="Seconds that one detector took on one artifact.",
    labels=("detector",),
    bounds=SECONDS,
)
P_VALUES = Family(
    name="guard_detector_p_value",
    help="Least p value that one detector gave one artifact. Among honest uploads a detector that "
    "is calibrated gives each tenth about equally often: a shift is a drift.",
    labels=("detector",),
    bounds=SHARES,
)
DETECTOR_ERRORS = Family(
    name="guard_detector_error",
    help="Artifacts that a detector could not look at, by kind of failure.",
    labels=("detector", "kind"),
)
STAGE_ERRORS = Family(
    name="guard_stage_error",
    help="Runs of a stage that ended by an error, by the error's code.",
    labels=("stage", "code"),
)
REFUSALS = Family(
    name="guard_refusal",
    help="Uploads that a stage refused, by the code of the broken rule.",
    labels=("stage", "code"),
)
REPAIRS = Family(
    name="guard_repair",
    help="Attempts to repair a model: tried, failed (no candidate was made), accepted.",
    labels=("defense", "outcome"),
)
FAMILIES = (STAGES, DETECTORS, P_VALUES, DETECTOR_ERRORS, STAGE_ERRORS, REFUSALS, REPAIRS)
#: Rows that a family may have. What would be one more counts under the labels `OTHER`, since codes
#: and names may come from a process that reads untrusted bytes.
MOST_ROWS, OTHER = 1000, "other"

Key = tuple[str, tuple[tuple[str, str], ...]]  # a family's name, and label pairs in order
Counted = Mapping[Key, float]
_SEEN: ContextVar[dict[Key, float] | None] = ContextVar("tallies", default=None)


def count(family: Family, *values: str, amount: float = 1.0) -> None:
    """Add to a counter; `values` are those of its labels. Outside `collecting` it is a no-op."""
    _add((f"{family.name}_total", _pairs(family, values)), amount)


def observe(family: Family, *values: str, value: float) -> None:
    """Add one value to a histogram."""
    place = bisect_left(family.bounds, value)
    le = str(family.bounds[place]) if place < len(family.bounds) else INFINITE
    pairs = _pairs(family, values)
    _add((f"{family.name}_bucket", (*pairs, (LE, le))), 1.0)
    _add((f"{family.name}_sum", pairs), value)


@contextmanager
def collecting() -> Iterator[Counted]:
    """What the block counts, by key."""
    found: dict[Key, float] = defaultdict(float)
    token = _SEEN.set(found)
    try:
        yield found
    finally:
        _SEEN.reset(token)


def _pairs(family: Family, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(family.labels, values, strict=True))


def _add(key: Key, amount: float) -> None:
    found = _SEEN.get()
    if found is not None:
        found[key] += amount
