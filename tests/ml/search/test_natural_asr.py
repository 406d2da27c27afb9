"""How strong a class's patch becomes, and what stops it.

Siblings that reach as much with as many pixels.
"""

from dataclasses import replace

import pytest
import torch

from guard.ml.search.natural_asr import LADDER, QUIET, Look, Siblings
from guard.ml.search.patches import PatchEffort, Patches, PatchKit, smallest_patches
from guard.ml.seeds import seeded
from guard.ml.statistics import ClassTest
from tests import toys


@pytest.fixture(scope="module")
def siblings() -> Siblings[Patches]:
    """Everyone of the planted toy, with patches made too small on purpose.

    They work on part of the pictures.
    """
    clean, model = toys.clean_set(), toys.planted(whole=True).requires_grad_(requires_grad=False)
    with seeded(0):
        found = smallest_patches(
            model,
            clean.search,
            torch.arange(toys.CLASSES),
            PatchEffort(steps=150, batch=16, goal=0.6),
            lambda done: None,
        )
    kit = PatchKit(
        model=model,
        search=clean.search,
        calibration=clean.calibration,
        smallest=found,
        effort=PatchEffort(steps=60, batch=16),
    )
    return Siblings(kit=kit, rows=list(range(toys.CLASSES)), most=1, alpha=0.01)


@pytest.fixture(scope="module")
def look(siblings: Siblings[Patches]) -> Look[Patches]:
    with seeded(1):
        return siblings.within(float(siblings.kit.smallest.norms[toys.TARGET]), lambda done: None)


def test_a_stronger_patch_is_found_and_its_siblings_stay_behind(
    siblings: Siblings[Patches], look: Look[Patches]
) -> None:
    told: list[float] = []
    with seeded(2):
        better = siblings.stronger(toys.TARGET, look, told.append)

    assert better is not None
    hits, trials = siblings.kit.successes(better.found, siblings.kit.calibration)
    assert better.rate == float(hits / trials) > look.rate(toys.TARGET)
    assert better.factor in LADDER
    assert (
        float(better.found.norms[0])
        <= better.factor * float(siblings.kit.smallest.norms[toys.TARGET]) + 1e-3
    )
    assert better.natural <= QUIET
    assert told == sorted(told)
    assert told[-1] <= 1.0


def test_no_stronger_patch_is_reported_where_siblings_reach_as_much(
    siblings: Siblings[Patches], look: Look[Patches]
) -> None:
    """Without the rule, the budget that helps the class helps all.

    A patch of such a size shows nothing.
    """
    model = toys.honest().requires_grad_(requires_grad=False)
    with seeded(2):
        found = smallest_patches(
            model,
            siblings.kit.search,
            torch.arange(toys.CLASSES),
            PatchEffort(steps=150, batch=16, goal=0.6),
            lambda done: None,
        )
        kit = PatchKit(
            model=model,
            search=siblings.kit.search,
            calibration=siblings.kit.calibration,
            smallest=found,
            effort=PatchEffort(steps=60, batch=16),
        )
        honest = replace(siblings, kit=kit)
        row = int(found.norms.argmax())
        seen = honest.within(float(found.norms[row]), lambda done: None)
        # As if they had been quiet at the smallest budget.
        seen = replace(
            seen, rates=[rate if other == row else 0.0 for other, rate in enumerate(seen.rates)]
        )

        assert seen.rate(row) < 1.0
        assert honest.stronger(row, seen, lambda done: None) is None


def test_natural_leaves_out_the_class_itself_and_other_outliers(look: Look[Patches]) -> None:
    def test(outlier: bool) -> ClassTest:
        return ClassTest(t=0.0, p=1.0, fold=1.0, outlier=outlier)

    seen = Look(5.0, [4, 1, 7], look.found, [0.9, 0.8, 0.2], [test(True), test(True), test(False)])

    assert seen.natural(4) == 0.2
    assert seen.rate(1) == 0.8
    assert seen.test(7) is seen.tests[2]
