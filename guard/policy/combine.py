"""Several methods' words without reference models.

What is proven, what is only suspicious, what nobody could tell.

Source: detection.md 7.7b (ours). What deviates, and why:
    * a single p value under 1 % does not hold a model: with ten families it would hold one honest
      model in ten. Each method's own `suspicious` flag does, and a combined p under `hold_level`
    * what the methods say of one and the same class counts together (`guard.policy.per_class`):
      that p under `class_level` holds a model that no method flags alone
    * a trigger is proven by its method's own gates (p, effect size, ASR) and the combined p; with
      one p value there is nothing to combine, and the gates alone decide
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.pvalues import cauchy
from guard.policy.features import coverage, p_values
from guard.policy.per_class import Accord, accord

LEAST_IMAGES = 50
ALL_TO_ALL = frozenset({"all_to_all", "all-to-all"})


@dataclass(frozen=True)
class Combined:
    """What all methods say together.

    `p` is None where fewer than two p values could be combined, `accord` where fewer than two
    methods speak of single classes.
    """

    p: float | None
    accord: Accord | None
    covered: tuple[str, ...]
    in_vain: tuple[str, ...]


def combine(heard: Sequence[Evidence]) -> Combined:
    """Combine the p values of all methods and informative families, and sum up what was covered."""
    values = p_values(heard)
    seen, in_vain = coverage(heard)
    p = cauchy(values.values()) if len(values) > 1 else None
    return Combined(p, accord(heard), tuple(sorted(seen)), tuple(sorted(in_vain)))


def proven(accused: Sequence[tuple[str, Finding]], combined: Combined, level: float) -> bool:
    """Whether the accused (method, finding) pairs prove a backdoor.

    One of: a trigger was recovered and measured, and all p values together are at most `level`, or
    all that is said of its own class is; a mapping of classes to classes was recovered; two methods
    accuse one class.
    """
    accusers = defaultdict(set)
    for method, finding in accused:
        accusers[finding.target].add(method)
    if any(len(methods) > 1 for target, methods in accusers.items() if target is not None):
        return True
    if any(finding.family in ALL_TO_ALL for _, finding in accused):
        return True
    measured = {finding.target for _, finding in accused if finding.asr is not None}
    together = combined.accord
    agreed = together is not None and together.target in measured and together.p <= level
    return bool(measured) and (combined.p is None or combined.p <= level or agreed)


def enough(said: Mapping[str, Sequence[Evidence]], level: float) -> bool:
    """Whether what is there is unusual at `level`.

    Whatever the methods that have not looked yet would say.

    Each of those counts as one more look that found nothing (Bonferroni), so that stopping raises
    no false alarms.

    Args:
        said: evidence by method, of every method of the policy; empty where one has not looked.
    """
    heard = [
        item
        for items in said.values()
        for item in items
        if item.outcome is not Outcome.COULD_NOT_LOOK
    ]
    values, looked = (
        p_values(heard),
        {item.method for item in heard},
    )  # who was blind has not looked either
    return bool(values) and cauchy(values.values()) <= level * len(looked) / len(said)


def mostly_in_vain(combined: Combined) -> bool:
    """Whether nothing could be told about more than half of the families that were looked at."""
    return len(combined.in_vain) > len(combined.covered)
