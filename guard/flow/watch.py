"""All that the metrics show, read at one time in a bounded number of queries."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from guard.core.states import GateMode
from guard.flow import _waivers
from guard.flow._modality import in_force
from guard.flow.served import on_warning
from guard.store import counts, watched
from guard.store.session import reading

if TYPE_CHECKING:
    from guard.flow.context import Guard


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there was at `at`.

    `let_through` are served although an enforcing gate would refuse them, `detectors` those of the
    policies in force, `waivers` those that count.
    """

    at: datetime
    counts: counts.Counts
    watched: watched.Watched
    warns: bool
    let_through: int
    detectors: frozenset[str]
    waivers: int


def look(guard: "Guard") -> Look:
    """Look now.

    Raises:
        Unavailable: the database did not answer.
    """
    now = guard.now()
    window = timedelta(seconds=guard.policy.rescan_before_seconds)
    with reading(guard.engine) as session:
        policies = in_force(guard, session)
        counted = counts.take(session, now, window=window)
        seen = watched.take(session, now, policies={policy.digest for policy in policies})
        through = len(on_warning(session))
    return Look(
        at=now,
        counts=counted,
        watched=seen,
        warns=any(policy.gate_mode is GateMode.WARN for policy in policies),
        let_through=through,
        detectors=frozenset(name for one in policies for name in one.detectors),
        waivers=sum(len(found) for found in _waivers.every(guard).values()),
    )
