"""Several searches, averaged: less luck, the same order of classes."""

import torch

from guard.ml.inversion import Effort, smallest_patches
from guard.ml.restarts import usual_logs
from guard.ml.seeds import seeded
from tests import toys

EFFORT = Effort(steps=100, batch=16)


def searched(seed: int, again: int) -> torch.Tensor:
    model, data = toys.planted().eval().requires_grad_(requires_grad=False), toys.clean_set().search
    with seeded(seed):
        first = smallest_patches(model, data, torch.arange(toys.CLASSES), EFFORT, lambda done: None)
        return torch.tensor(usual_logs(model, data, first, EFFORT, again, lambda done: None))


def test_more_searches_agree_better_from_seed_to_seed_and_still_find_the_planted_class() -> None:
    one, four = (torch.stack([searched(seed, again) for seed in range(5)]) for again in (0, 3))

    assert float(four.var(0).mean()) < 0.5 * float(one.var(0).mean())
    assert four.argmin(1).tolist() == [toys.TARGET] * 5


def test_progress_rises_to_the_end_over_all_searches() -> None:
    told: list[float] = []
    model, data = toys.honest().eval().requires_grad_(requires_grad=False), toys.clean_set().search
    first = smallest_patches(model, data, torch.tensor([1, 2]), Effort(steps=20, batch=4), lambda done: None)

    logs = usual_logs(model, data, first, Effort(steps=20, batch=4), 2, told.append)

    assert told == sorted(told)
    assert told[-1] == 1
    assert len(logs) == 2
