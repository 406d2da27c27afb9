"""Combine the p values that several methods report for the same class; pure Python.

A single method compares a class with its siblings, and often finds the backdoor's class only the
second or third most unusual. But methods err about different classes, and most of them find the
backdoor's class unusual. So the p values of all methods are combined for each class by Fisher's
method, and the least result is corrected for the number of classes.

The p values are in a finding's `numbers`: `p_class` for its own target, or `p_class_0`, `p_class_1`
and so on for all classes, uncorrected; `classes` is the number of classes. A method that reports
nothing about a class counts as p = 1.

Fisher's method assumes that the methods err independently of each other. How well that holds is
measured: every detection record has the level of this p on honest models (docs/evidence.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guard.core.evidence import Evidence
from guard.core.pvalues import fisher, sidak

ALONE, CLASSES = "p_class", "classes"


@dataclass(frozen=True)
class Accord:
    """The class that all methods together find most unusual.

    `p` (0..1) is corrected for the number of classes.
    """

    target: int
    p: float
    methods: tuple[str, ...]


def accord(usable: Sequence[Evidence]) -> Accord | None:
    """The most unusual class over all methods; None where fewer than two report on classes."""
    tables = by_class(usable)
    if len(tables) < 2:
        return None
    classes = max(_classes(usable), *map(len, tables.values()))
    targets = sorted({target for table in tables.values() for target in table})
    found = {
        target: fisher([table.get(target, 1.0) for table in tables.values()]) for target in targets
    }
    target = min(targets, key=lambda one: found[one])
    return Accord(target, sidak(found[target], classes), tuple(sorted(tables)))


def by_class(usable: Sequence[Evidence]) -> dict[str, dict[int, float]]:
    """The least p of each class by method; so another seed can only add suspicion."""
    tables: dict[str, dict[int, float]] = {}
    for item in usable:
        for finding in item.findings:
            own = (
                {finding.target: finding.numbers[ALONE]}
                if (isinstance(finding.target, int) and ALONE in finding.numbers)
                else {}
            )
            own |= {
                int(name.rpartition("_")[2]): value
                for name, value in finding.numbers.items()
                if name.startswith(f"{ALONE}_") and name.rpartition("_")[2].isdecimal()
            }
            for target, value in own.items():
                if 0 <= value <= 1:  # NaN is no p value; `abstain.not_finite` reports it
                    table = tables.setdefault(item.method, {})
                    table[target] = min(value, table.get(target, 1.0))
    return tables


def _classes(usable: Sequence[Evidence]) -> int:
    """The number of classes of the model by the findings; 0 where none states it."""
    known = [
        finding.numbers[CLASSES]
        for item in usable
        for finding in item.findings
        if CLASSES in finding.numbers
    ]
    return max((int(count) for count in known if math.isfinite(count)), default=0)
