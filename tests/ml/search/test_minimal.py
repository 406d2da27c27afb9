"""The faintest trigger of each class: how faint, for whom, and what is kept of the search."""

import pytest
import torch

from guard.ml.measure import asr
from guard.ml.search.engine import Pace
from guard.ml.search.families import Additions, Filters
from guard.ml.search.minimal import CENSORED, MinimalKit, MinimalTriggers, minimal_triggers
from guard.ml.seeds import seeded
from tests import rules, toys

PACE = Pace(batch=12, window=8, windows=14)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return rules.Ruled(rules.correlates).eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def found(model: torch.nn.Module) -> MinimalTriggers:
    with seeded(0):
        return minimal_triggers(
            model, toys.clean_set().search, Additions(), toys.CLASSES, PACE, lambda done: None
        )


def test_the_class_of_a_planted_rule_needs_far_less_than_its_siblings(
    found: MinimalTriggers,
) -> None:
    others = [float(norm) for row, norm in enumerate(found.norms) if row != toys.TARGET]

    assert found.reached.all()
    assert float(found.norms[toys.TARGET]) < min(others) / 2


def test_what_is_kept_works_at_the_level_that_is_reported(
    model: torch.nn.Module, found: MinimalTriggers
) -> None:
    holdout = toys.curated().holdout
    for row in range(toys.CLASSES):
        trigger = found.trigger(row)
        assert trigger.norm <= float(found.norms[row]) + 1e-6
        assert asr(model, holdout, trigger, row, "additive").estimate >= 0.6


def test_a_class_that_no_level_reaches_is_censored_over_the_strongest() -> None:
    kind = Filters(levels=(0.01, 0.02))
    with seeded(0):
        seen = minimal_triggers(
            toys.honest().requires_grad_(requires_grad=False),
            toys.clean_set().search,
            kind,
            toys.CLASSES,
            Pace(batch=6, window=4, windows=3),
            lambda done: None,
        )

    assert not seen.reached.any()
    assert seen.norms.tolist() == pytest.approx([CENSORED * 0.02] * toys.CLASSES)
    assert seen.levels.tolist() == pytest.approx([0.02] * toys.CLASSES)
    assert seen.trigger(0).norm <= 0.02 + 1e-6


def kit_of(model: torch.nn.Module, found: MinimalTriggers, pace: Pace) -> MinimalKit:
    clean = toys.clean_set()
    return MinimalKit(
        model=model,
        search=clean.search,
        calibration=clean.calibration,
        smallest=found,
        classes=toys.CLASSES,
        pace=pace,
    )


def test_each_row_is_searched_at_a_budget_of_its_own_and_more_reaches_more(
    model: torch.nn.Module, found: MinimalTriggers
) -> None:
    kit = kit_of(model, found, Pace(batch=12, window=8, windows=4))
    sibling = next(row for row in range(toys.CLASSES) if row != toys.TARGET)
    start, own = found.pick([sibling, sibling]), float(found.norms[sibling])
    with seeded(1):
        seen = kit.within(start, torch.tensor([own / 4, own]), lambda done: None)
    hits, trials = kit.successes(seen, toys.clean_set().calibration)

    assert seen.norms.tolist() == pytest.approx([own / 4, own])
    assert trials.tolist() == [100, 100]
    assert hits[0] < 30 < 60 < hits[1]


def test_random_triggers_do_not_wake_a_rule_that_asks_for_a_secret(
    model: torch.nn.Module, found: MinimalTriggers
) -> None:
    kit = kit_of(model, found, PACE)
    with seeded(2):
        chance = kit.chance(found, toys.TARGET, 6)

    assert len(chance) == 6
    assert chance == sorted(chance, reverse=True)
    assert chance[2] <= 0.3
