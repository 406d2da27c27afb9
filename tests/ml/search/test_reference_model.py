"""The guard's own reference.

The same for the same clean set, and it knows which class a task makes easy.
"""

import json
from collections import OrderedDict

import pytest
import torch

from guard.core.errors import OutOfTime
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.search import reference_model
from guard.ml.search.patches import PatchEffort
from guard.ml.search.reference_model import log_norms
from guard.ml.seeds import seeded
from guard.ml.training.small_network import PART, shrunk
from tests import toys

EFFORT = PatchEffort(steps=60, batch=8)


def clean(*, easy: int | None = None) -> CleanSet:
    """Noisy prototypes.

    Pictures of the class `easy` are the others' with a bright corner, which alone tells it.
    """
    parts = []
    for count, seed in ((240, 1), (120, 2)):
        data = toys.labelled(count, seed)
        images = data.images.clone()
        if easy is not None:
            own = torch.nonzero(data.labels == easy).flatten()
            images[own] = data.images[torch.nonzero(data.labels != easy).flatten()[: len(own)]]
            images[own] = toys.stamped(images[own])
        parts.append(Labelled(images, data.labels))
    return CleanSet("toys", "0" * 64, toys.CLASSES, *parts)


def _unwatched(_done: float) -> None:
    """Nobody looks."""


def test_the_same_pictures_give_the_same_answer_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first = log_norms(clean(), 6, EFFORT, _unwatched)
    assert torch.equal(torch.rand(4), wanted)
    log_norms(clean(easy=1), 5, EFFORT, _unwatched)
    with seeded(9):
        again = log_norms(clean(), 6, EFFORT, _unwatched)

    assert first is not None
    assert len(first) == toys.CLASSES
    assert again == first


def test_a_class_that_the_task_makes_easy_needs_the_smallest_patch_on_the_reference_too() -> None:
    norms = log_norms(clean(easy=4), 20, PatchEffort(steps=200, batch=16), _unwatched)

    assert norms is not None
    assert min(range(toys.CLASSES), key=lambda row: norms[row]) == 4


def test_large_pictures_are_asked_at_a_size_that_costs_little() -> None:
    count = PART + 3
    images = torch.randint(0, 256, (count, 1, 130, 60), dtype=torch.uint8)
    small = toys.labelled(30, 1)

    less = shrunk(Labelled(images, torch.zeros(count, dtype=torch.int64)))

    assert less.images.shape == (count, 1, 33, 15)
    assert less.images.dtype == torch.uint8
    assert float((less.images.float().mean() - images.float().mean()).abs()) < 1
    assert torch.equal(shrunk(small).images, small.images)


def test_a_search_that_runs_out_of_time_ends_and_is_not_remembered() -> None:
    def stop(_done: float) -> None:
        raise OutOfTime("It ran out of time.")

    with pytest.raises(OutOfTime):
        log_norms(clean(easy=2), 6, EFFORT, stop)
    assert log_norms(clean(easy=2), 6, EFFORT, _unwatched) is not None


def test_pictures_that_teach_nothing_give_no_reference() -> None:
    data = toys.labelled(60, 1)
    noise = Labelled(torch.randint(0, 256, data.images.shape, dtype=torch.uint8), data.labels)

    assert (
        log_norms(CleanSet("noise", "0" * 64, toys.CLASSES, noise, noise), 1, EFFORT, _unwatched)
        is None
    )


def test_what_is_carried_to_another_process_is_not_worked_out_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(_done: float) -> None:
        raise AssertionError("it is worked out again")

    monkeypatch.setattr(reference_model, "_known", OrderedDict())
    answer = log_norms(clean(), 6, EFFORT, _unwatched)
    carried = json.loads(json.dumps(reference_model.remembered()))
    monkeypatch.setattr(reference_model, "_known", OrderedDict())
    reference_model.remember(carried)

    assert answer is not None
    assert log_norms(clean(), 6, EFFORT, never) == answer


@pytest.mark.parametrize("answer", ["text", [1.0, float("nan")], [1.0, "two"], {"a": 1.0}])
def test_what_is_no_answer_is_not_taken_over(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_model, "_known", OrderedDict())

    reference_model.remember({"a key": answer})

    assert reference_model.remembered() == {}
