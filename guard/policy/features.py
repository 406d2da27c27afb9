"""Evidence as numbers.

The features that combination and calibration read, each larger for what is more suspicious.

Per method M and family F, over all findings and runs (so that another seed can only add suspicion):
    M.F.p      -log10 of the least `p_value`; 0..12 M.score    the largest score; 0..1 M.fold     ln
    of the largest `fold` (how much less the class needs than its siblings), and so on for `EFFECTS`
    M.asr      the largest score * (lower end of the hold-out ASR): a trigger counts as far as it is
    unusual
and over all methods together: all.p      -log10 of the Cauchy combination of the p values; 0..12
    class.p    -log10 of what the methods say of one class together (`guard.policy.per_class`)
    all.votes  the largest sum of scores that the methods give to one and the same class, less the
    largest single one
A number that nobody measured has no entry. `p_value` is expected to be corrected for the classes
looked at.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from guard.core.evidence import Evidence, Finding
from guard.core.pvalues import LEAST_P, cauchy
from guard.policy.per_class import accord

P_VALUE = "p_value"
#: In `numbers`: 0 says that the method could tell nothing about this family on this model.
INFORMATIVE = "informative"
#: Effect sizes by their name in `numbers`, with the value that means "no effect"; True: on a log
#: scale.
EFFECTS: Mapping[str, tuple[float, bool]] = {
    "fold": (1.0, True),
    "ratio": (1.0, True),
    "excess": (0.0, False),
    "x2x_asr": (0.0, False),
    "z": (0.0, False),
}
MOST_EFFECT = 50.0


def p_values(heard: Sequence[Evidence]) -> dict[tuple[str, str], float]:
    """The least p value of each method and family that was informative."""
    least: dict[tuple[str, str], float] = {}
    silent = uninformative(heard)
    for item in heard:
        for finding in item.findings:
            p, key = finding.numbers.get(P_VALUE), (item.method, finding.family)
            if p is not None and 0 <= p <= 1 and key not in silent:
                least[key] = min(p, least.get(key, 1.0))
    return least


def uninformative(heard: Sequence[Evidence]) -> set[tuple[str, str]]:
    """Methods and families that were looked at in vain in every run."""
    said: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for item in heard:
        for family in item.families:
            told = [
                finding.numbers[INFORMATIVE]
                for finding in item.findings
                if finding.family == family and INFORMATIVE in finding.numbers
            ]
            said[item.method, family].append(bool(told) and not any(told))
    return {key for key, blind in said.items() if all(blind)}


def coverage(heard: Sequence[Evidence]) -> tuple[set[str], set[str]]:
    """(families that at least one method could tell something about.

    Families that were looked at in vain).
    """
    silent = uninformative(heard)
    spoken = {(item.method, family) for item in heard for family in item.families}
    seen = {family for _, family in spoken - silent}
    return seen, {family for _, family in spoken} - seen


def features(heard: Sequence[Evidence]) -> dict[str, float]:
    """All features of a model; only finite numbers, in the order of their names."""
    found: dict[str, float] = {}
    least = p_values(heard)
    for (method, family), p in least.items():
        found[f"{method}.{family}.p"] = _minus_log(p)
    if least:
        found["all.p"] = _minus_log(cauchy(least.values()))
    for item in heard:
        for finding in item.findings:
            for name, value in _of(finding):
                key = f"{item.method}.{name}"
                found[key] = max(value, found.get(key, -math.inf))
    if (together := accord(heard)) is not None:
        found["class.p"] = _minus_log(together.p)
    found["all.votes"] = _votes(heard)
    return {name: value for name, value in sorted(found.items()) if math.isfinite(value)}


def _of(finding: Finding) -> Iterable[tuple[str, float]]:
    yield "score", finding.score
    if finding.asr is not None:
        yield "asr", finding.score * finding.asr.low
    for name, (none, logarithmic) in EFFECTS.items():
        value = finding.numbers.get(name)
        if value is None or not math.isfinite(value):
            continue
        size = (
            math.log(max(value, none)) - math.log(none) if logarithmic else max(value, none) - none
        )
        yield name, min(size, MOST_EFFECT)


def _votes(heard: Sequence[Evidence]) -> float:
    """How much the methods agree about one class beyond what the loudest of them says."""
    by_class: dict[object, dict[str, float]] = defaultdict(dict)
    for item in heard:
        for finding in item.findings:
            if finding.target is not None and math.isfinite(finding.score):
                own = by_class[finding.target]
                own[item.method] = max(finding.score, own.get(item.method, 0.0))
    return max(
        (sum(scores.values()) - max(scores.values()) for scores in by_class.values()), default=0.0
    )


def _minus_log(p: float) -> float:
    return -math.log10(max(p, LEAST_P))
