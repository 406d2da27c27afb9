"""Several searches, averaged: less luck, the same order of classes."""

import torch

from guard.ml.search.multistart import several_searches
from guard.ml.search.patches import PatchEffort, Patches
from guard.ml.seeds import seeded
from tests import toys

EFFORT = PatchEffort(steps=100, batch=16)


def searched(seed: int, again: int) -> tuple[Patches, list[float]]:
    model, data = toys.planted().eval().requires_grad_(requires_grad=False), toys.clean_set().search
    with seeded(seed):
        return several_searches(
            model, data, torch.arange(toys.CLASSES), EFFORT, again, lambda done: None
        )


def test_more_searches_agree_better_from_seed_to_seed_and_still_find_the_planted_class() -> None:
    one, four = (torch.tensor([searched(seed, again)[1] for seed in range(5)]) for again in (0, 3))

    assert float(four.var(0).mean()) < 0.5 * float(one.var(0).mean())
    assert four.argmin(1).tolist() == [toys.TARGET] * 5


def test_more_searches_never_find_a_larger_patch() -> None:
    one, four = searched(0, 0)[0], searched(0, 3)[0]

    assert bool((four.norms <= one.norms).all())
    assert bool((four.norms < one.norms).any())


def test_progress_rises_to_the_end_over_all_searches() -> None:
    told: list[float] = []
    model, data = toys.honest().eval().requires_grad_(requires_grad=False), toys.clean_set().search

    _, logs = several_searches(
        model, data, torch.tensor([1, 2]), PatchEffort(steps=20, batch=4), 2, told.append
    )

    assert told == sorted(told)
    assert told[-1] == 1
    assert len(logs) == 2
