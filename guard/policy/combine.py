"""Combine the evidence of several methods without reference models.

It is sorted into what is proven, what is only suspicious, and what no method could measure. The
rules are our own:
    * a single p value under 1 % does not hold a model: with ten families it would hold one honest
      model in ten. A method's own flag `suspicious` does, and so does a combined p under
      `hold_level`
    * the p values of all methods for the same class are combined (`guard.policy.per_class`): a
      result under `class_level` holds a model that no method flags alone
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
    """The evidence of all methods together.

    `p` is None where fewer than two p values could be combined, `accord` where fewer than two
    methods report p values of single classes. `covered` are the families about which some method
    was informative, `uninformative` the others that were examined.
    """

    p: float | None
    accord: Accord | None
    covered: tuple[str, ...]
    uninformative: tuple[str, ...]


def combine(usable: Sequence[Evidence]) -> Combined:
    """Combine the p values of all methods and informative families, and list what was covered."""
    values = p_values(usable)
    seen, uninformative = coverage(usable)
    p = cauchy(values.values()) if len(values) > 1 else None
    return Combined(p, accord(usable), tuple(sorted(seen)), tuple(sorted(uninformative)))


def proven(accused: Sequence[tuple[str, Finding]], combined: Combined, level: float) -> bool:
    """Whether the accused (method, finding) pairs prove a backdoor.

    They do in each of three cases: a trigger was recovered and measured, and the combined p value
    of all methods, or of all methods for its class, is at most `level`; a mapping of classes to
    classes was recovered; two methods accuse one class.
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


def enough(by_method: Mapping[str, Sequence[Evidence]], level: float) -> bool:
    """Whether the evidence is unusual at `level`, whatever the methods still to run would report.

    Each of those counts as one more look that found nothing (Bonferroni), so that stopping early
    raises no false alarms.

    Args:
        by_method: the evidence of every method of the policy; empty for one that has not run.
    """
    usable = [
        item
        for items in by_method.values()
        for item in items
        if item.outcome is not Outcome.COULD_NOT_LOOK
    ]
    # A method that could not look counts as one that has not run.
    values, informed = p_values(usable), {item.method for item in usable}
    return bool(values) and cauchy(values.values()) <= level * len(informed) / len(by_method)


def mostly_uninformative(combined: Combined) -> bool:
    """Whether no method was informative about more than half of the families examined."""
    return len(combined.uninformative) > len(combined.covered)
