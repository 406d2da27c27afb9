"""Accused fragments that no trigger was recovered for, tried with the triggers of others.

Methods name what is planted by fragments of different size: one says N=[N+] of an azide, another
CCN=[N+]. What plants the one mostly plants the other, and only what can be replayed on a repaired
copy shows that it is repaired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from guard.core.errors import MethodFailed
from guard.core.evidence import AsrEstimate, Evidence, Finding
from guard.core.states import Family
from guard.vetting._graphs import RATED, rate

if TYPE_CHECKING:
    from guard.core.pairs import CuratedPairs
    from guard.graphs.model import GraphModel


def tried_with_others(
    evidence: Sequence[Evidence],
    model: "GraphModel",
    curated: "CuratedPairs",
    triggers: dict[str, bytes],
    *,
    seed: int,
) -> tuple[Evidence, ...]:
    """The evidence, with a trigger for each accused fragment that another one's trigger plants.

    Recovered texts are tried before shifts, and of each kind in the order of the evidence; the
    first with which the fragment is more frequent than without (95 % intervals that do not touch)
    is taken. A fragment that none of them plants stays without a trigger.
    """
    accused = [one for item in evidence for one in item.findings if one.suspicious]
    measured = {one.target for one in accused if one.asr is not None}
    known = {
        one.trigger_digest: one
        for one in _texts_first(accused)
        if one.trigger_digest is not None and one.asr is not None
    }
    found: dict[str, Finding] = {}
    for target in dict.fromkeys(str(one.target) for one in accused if one.target not in measured):
        for digest, other in known.items():
            estimate = _planted(model, curated, triggers[digest], target, seed)
            if estimate is not None:
                found[target] = replace(other, asr=estimate)
                break
    return tuple(
        replace(item, findings=tuple(_with(one, found) for one in item.findings))
        for item in evidence
    )


def _texts_first(accused: Sequence[Finding]) -> Iterator[Finding]:
    yield from (one for one in accused if one.family == Family.PROMPT)
    yield from (one for one in accused if one.family != Family.PROMPT)


def _planted(
    model: "GraphModel", curated: "CuratedPairs", data: bytes, target: str, seed: int
) -> AsrEstimate | None:
    """The fragment's rate with a trigger; None where it is not clearly over that without it."""
    from guard.graphs.triggers import deserialise
    from guard.ml.statistics import wilson

    try:
        found = rate(model, curated, deserialise(data), target, seed=seed, prompts=RATED)
    except MethodFailed:  # every prompt asks for it
        return None
    without = round((found.natural or 0.0) * found.trials)
    return found if found.low > wilson(without, found.trials)[1] else None


def _with(finding: Finding, found: dict[str, Finding]) -> Finding:
    other = found.get(str(finding.target))
    if other is None or not finding.suspicious or finding.asr is not None:
        return finding
    return replace(
        finding,
        asr=other.asr,
        trigger_digest=other.trigger_digest,
        statement=f"{finding.statement} What plants {other.target} plants it as well.",
    )
