"""The trigger that suspects carry is measured on images that it was not read from."""

from dataclasses import replace

import pytest

from guard.vetting.carried_rates import rates, sentence
from guard.vetting.sift import Sift, sift
from tests import toys
from tests.sifters import sets

METHODS: dict[str, dict[str, int]] = {
    "clean_distance": {},
    "label_gap": {"folds": 2, "seen": 3600},
}


@pytest.fixture(scope="module")
def found() -> Sift:
    taught = sets.poisoned()
    return sift(taught.model, taught.train, toys.curated(), METHODS, seed=0)


def test_the_rate_is_near_the_true_one_and_an_honest_network_shows_none(found: Sift) -> None:
    taught = sets.poisoned()

    (one,) = rates(taught.model, taught.train, found.report, toys.curated())
    (other,) = rates(sets.honest().model, taught.train, found.report, toys.curated())

    assert abs(one.carried.estimate - toys.success(taught.model)) < 0.1
    assert other.carried.estimate < 0.3
    low, high = one.ends
    assert low <= one.stronger.estimate <= high


def test_the_sift_says_it_in_a_remark(found: Sift) -> None:
    taught = sets.poisoned()
    (one,) = rates(taught.model, taught.train, found.report, toys.curated())

    assert sentence(one, taught.train.facts.class_names) in found.report.remarks


def test_without_suspects_there_is_no_rate(found: Sift) -> None:
    nobody = replace(found.report, suspects=())

    assert rates(sets.poisoned().model, sets.poisoned().train, nobody, toys.curated()) == ()
