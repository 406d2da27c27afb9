"""The search for a scattering trigger: its aim, and levels that fall only while it works."""

import pytest
import torch

from guard.ml.search.engine import Pace, TriggerSearch
from guard.ml.search.families import Blends
from guard.ml.search.scattered import LEAST, Scattered, smallest_levels
from tests import toys

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def judged(classes_predicted: list[int]) -> tuple[Scattered, float]:
    aim = Scattered(LABELS, 3, 1)
    logits = 8 * torch.nn.functional.one_hot(torch.tensor(classes_predicted), 3).float()[None]
    loss, good, trials = aim.judge(logits, slice(0, 1), torch.arange(6))
    assert float(trials) == 6
    wrong = sum(one != own for one, own in zip(classes_predicted, LABELS.tolist(), strict=True))
    assert float(good) == wrong
    return aim, float(loss)


def test_images_that_leave_for_several_classes_are_the_aim_and_one_class_for_all_is_not() -> None:
    (apart, best), (together, middle), (still, worst) = (
        judged([1, 1, 2, 2, 0, 0]),
        judged([1, 1, 1, 1, 1, 1]),
        judged([0, 0, 1, 1, 2, 2]),
    )

    assert best < middle < worst
    assert float(apart.entropies()) == pytest.approx(1.0)
    assert float(together.entropies()) == pytest.approx(0.0, abs=1e-6)
    assert float(still.entropies()) == pytest.approx(1.0)
    assert float(apart.entropies()) == 0.0  # a window's counts are its own


def a_search(rows: int = 2) -> TriggerSearch:
    data, pace = toys.clean_set().search, Pace(batch=12, window=1, windows=4, least=0)
    model = toys.honest().requires_grad_(requires_grad=False)
    aim = Scattered(data.labels, toys.CLASSES, rows)
    return TriggerSearch(model, Blends(), data, aim, pace, 0.4)


def test_a_level_falls_while_it_works_and_the_smallest_that_did_is_kept() -> None:
    search, done = a_search(), list[float]()
    answers = iter([[True, False], [True, False], [False, False], [False, False]])
    found = smallest_levels(search, lambda _rates: torch.tensor(next(answers)), done.append)

    assert found.reached.tolist() == [True, False]
    assert found.levels.tolist() == pytest.approx([0.2, 0.4])
    assert search.level.tolist() == pytest.approx([0.2, 0.4])
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_no_level_falls_below_what_a_family_has() -> None:
    search = a_search(1)
    search.pace = Pace(batch=12, window=1, windows=30, least=0)
    smallest_levels(search, lambda _rates: torch.tensor([True]), lambda _done: None)

    assert float(search.level) == pytest.approx(LEAST * Blends().levels[0])
