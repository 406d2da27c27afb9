"""Hold what would pass if its weights are nearly those of an upload that was blocked before it.

Otherwise whoever uploads the same network often enough, each time with a little noise, gets other
draws until chance lets one pass. The worst verdict sticks until a person decides. Blocked later
uploads count for nothing: they take out of service nothing that was there before them.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.core.weight_sketch import distance
from guard.store import projects, scans
from guard.store.session import reading

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.policy import Decision
    from guard.store.rows import ScanRow

#: What differs by less is the same network: rounding to half precision changes less than this, and
#: training one epoch further changes more.
NEAR = 0.01
#: Only so many blocked uploads are compared with, the newest.
MOST = 1000
_LOG = structlog.get_logger()
_BLOCKED = (Verdict.REJECTED, Verdict.HELD)


def hold_if_near(guard: "Guard", scan: "ScanRow", decision: "Decision") -> "Decision":
    """The decision, or in its place that a person decides.

    Repaired and retrained networks are judged by themselves, since they are near what was blocked.
    """
    repaired = scan.detail.purification is not None or scan.detail.retraining is not None
    if decision.verdict not in SERVABLE_VERDICTS or repaired:
        return decision
    with reading(guard.engine) as session:
        rescan = scan.detail.rescan
        first = scan if rescan is None else scans.get(session, rescan.of)
        if first.detail.sketch is None:
            return decision
        blocked = scans.with_verdict(session, _BLOCKED, before=first.created_at, limit=MOST)
        known = projects.list_all(session)
    near = [
        (apart, other)
        for other in blocked
        if other.detail.sketch is not None and other.canonical_digest != first.canonical_digest
        if (apart := distance(other.detail.sketch, first.detail.sketch)) < NEAR
    ]
    if not near:
        return decision

    def own(other: "ScanRow") -> bool:
        mine = projects.covering(known, first.bucket, first.key)
        return projects.covering(known, other.bucket, other.key) == mine

    apart, other = next((one for one in near if own(one[1])), near[0])
    _LOG.info("near_blocked_upload", scan_id=scan.id, other_scan_id=other.id, apart=apart)
    facts = replace(
        decision.facts,
        verdict=Verdict.HELD,
        reasons=(_reason(apart, other if own(other) else None), *decision.reasons),
        gate=guard.policy.gated(Verdict.HELD),
    )
    return replace(decision, facts=facts)


def _reason(apart: float, other: "ScanRow | None") -> str:
    """Why a person decides; whoever reads it may not read another project's scan.

    Nor are they to know how near they came to it.
    """
    if other is None:
        return (
            "Its weights are nearly those of an upload to another project, which was blocked; a "
            "person must decide."
        )
    return (
        f"Its weights differ by about {apart:.1e} of their size from those of scan "
        f"{other.id[:12]}, which was blocked; a person must decide."
    )
