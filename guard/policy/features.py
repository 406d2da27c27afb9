"""Evidence as numbers: the features that combination and calibration read.

Each is larger for what is more suspicious. Those of a method M and family F are taken over all
findings and runs, so that another seed can only add suspicion:

    M.F.p      -log10 of the least `p_value`; 0..12
    M.score    the largest score; 0..1
    M.fold     ln of the largest `fold` (how much less the class needs than its siblings); there is
               one such feature for each of `EFFECTS`
    M.asr      the largest product of a score and the lower end of its trigger's ASR on the
               hold-out: a trigger counts as much as it is unusual; 0..1

and those of all methods together:

    all.p      -log10 of the Cauchy combination of the p values; 0..12
    class.p    -log10 of the combined p value of one class (`guard.policy.per_class`)
    all.votes  the largest sum of the methods' scores for one class, less the largest of them

A number that no method measured has no entry. A `p_value` must be corrected for the number of
classes examined.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from guard.core.evidence import Evidence, Finding
from guard.core.pvalues import LEAST_P, cauchy
from guard.policy.per_class import accord

P_VALUE = "p_value"
#: In `numbers`: 0 where the method could not measure anything about this family on this model.
INFORMATIVE = "informative"
#: The p value of a ranking of classes (`guard.ml.search.class_ranking`), which no rule combines.
RANKED = "p_ranking"
#: Effect sizes by their name in `numbers`: the value that means "no effect", and whether the
#: feature is on a log scale.
EFFECTS: Mapping[str, tuple[float, bool]] = {
    "fold": (1.0, True),
    "ratio": (1.0, True),
    "excess": (0.0, False),
    "x2x_asr": (0.0, False),
    "z": (0.0, False),
}
MOST_EFFECT = 50.0


def p_values(usable: Sequence[Evidence]) -> dict[tuple[str, str], float]:
    """The least p value of each method and family that was informative."""
    least: dict[tuple[str, str], float] = {}
    silent = uninformative(usable)
    for item in usable:
        for finding in item.findings:
            p, key = finding.numbers.get(P_VALUE), (item.method, finding.family)
            if p is not None and 0 <= p <= 1 and key not in silent:
                least[key] = min(p, least.get(key, 1.0))
    return least


def rankings(usable: Sequence[Evidence]) -> dict[str, float]:
    """The least p value of each method's ranking of classes, where it was informative."""
    least: dict[str, float] = {}
    silent = uninformative(usable)
    for item in usable:
        for finding in item.findings:
            p = finding.numbers.get(RANKED)
            if p is not None and 0 <= p <= 1 and (item.method, finding.family) not in silent:
                least[item.method] = min(p, least.get(item.method, 1.0))
    return least


def uninformative(usable: Sequence[Evidence]) -> set[tuple[str, str]]:
    """The (method, family) pairs about which no run of the method was informative."""
    silent: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for item in usable:
        for family in item.families:
            flags = [
                finding.numbers[INFORMATIVE]
                for finding in item.findings
                if finding.family == family and INFORMATIVE in finding.numbers
            ]
            silent[item.method, family].append(bool(flags) and not any(flags))
    return {key for key, runs in silent.items() if all(runs)}


def coverage(usable: Sequence[Evidence]) -> tuple[set[str], set[str]]:
    """The families about which some method was informative, and the others that were examined."""
    examined = {(item.method, family) for item in usable for family in item.families}
    covered = {family for _, family in examined - uninformative(usable)}
    return covered, {family for _, family in examined} - covered


def features(usable: Sequence[Evidence]) -> dict[str, float]:
    """All features of a model; only finite numbers, in the order of their names."""
    found: dict[str, float] = {}
    least = p_values(usable)
    for (method, family), p in least.items():
        found[f"{method}.{family}.p"] = _minus_log(p)
    if least:
        found["all.p"] = _minus_log(cauchy(least.values()))
    for item in usable:
        for finding in item.findings:
            for name, value in _of(finding):
                key = f"{item.method}.{name}"
                found[key] = max(value, found.get(key, -math.inf))
    if (together := accord(usable)) is not None:
        found["class.p"] = _minus_log(together.p)
    found["all.votes"] = _votes(usable)
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


def _votes(usable: Sequence[Evidence]) -> float:
    """How far the methods agree on one class: their summed scores without the largest one."""
    by_class: dict[object, dict[str, float]] = defaultdict(dict)
    for item in usable:
        for finding in item.findings:
            if finding.target is not None and math.isfinite(finding.score):
                own = by_class[finding.target]
                own[item.method] = max(finding.score, own.get(item.method, 0.0))
    return max(
        (sum(scores.values()) - max(scores.values()) for scores in by_class.values()), default=0.0
    )


def _minus_log(p: float) -> float:
    return -math.log10(max(p, LEAST_P))
