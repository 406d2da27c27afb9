"""What several methods say of one and the same class; pure Python.

A method alone compares a class with its siblings, and a backdoor's is often only its second or
third most unusual one. But the methods err about different classes, and the backdoor's own class is
unusual to most of them. So per class the p values of all methods are combined by Fisher's method,
and the least is corrected for the number of classes.

Findings say it in `numbers`: `p_class` of a finding's own target, or `p_class_0`, `p_class_1` and
so on of all classes, uncorrected; `classes` is how many there are. A method that says nothing of a
class counts as p = 1.

Fisher's method holds for methods that err independently of each other. How far it does here is
measured: the level of this p on honest models is in every detection record (docs/evidence.md).
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

    `p` (0..1) is corrected for the classes.
    """

    target: int
    p: float
    methods: tuple[str, ...]


def accord(heard: Sequence[Evidence]) -> Accord | None:
    """The most unusual class over all methods.

    None where fewer than two speak of single classes.
    """
    tables = by_class(heard)
    if len(tables) < 2:
        return None
    classes = max(_classes(heard), *map(len, tables.values()))
    targets = sorted({target for table in tables.values() for target in table})
    found = {
        target: fisher([table.get(target, 1.0) for table in tables.values()]) for target in targets
    }
    target = min(targets, key=lambda one: found[one])
    return Accord(target, sidak(found[target], classes), tuple(sorted(tables)))


def by_class(heard: Sequence[Evidence]) -> dict[str, dict[int, float]]:
    """By method.

    The least p of each class that it speaks of (another seed can only add suspicion).
    """
    tables: dict[str, dict[int, float]] = {}
    for item in heard:
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
                if 0 <= value <= 1:  # NaN is no p value, and is noticed elsewhere
                    table = tables.setdefault(item.method, {})
                    table[target] = min(value, table.get(target, 1.0))
    return tables


def _classes(heard: Sequence[Evidence]) -> int:
    """How many classes the model has, as far as the findings say."""
    known = [
        finding.numbers[CLASSES]
        for item in heard
        for finding in item.findings
        if CLASSES in finding.numbers
    ]
    return max((int(count) for count in known if math.isfinite(count)), default=0)
