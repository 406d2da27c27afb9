"""The search for universal triggers.

Raw parameters mean triggers, levels hold, the descent stops where it should.
"""

from typing import cast

import pytest
import torch
from torch import Tensor

from guard.ml.search.engine import Pace, Targets, TriggerSearch, descend, successes
from guard.ml.search.families import (
    Additions,
    Blends,
    Filters,
    Generators,
    Patches,
    Searchable,
    Warps,
    Waves,
)
from guard.ml.search.label_permutations import Departures, cyclic_share, mapping_of, shuffled
from guard.ml.seeds import seeded
from tests import toys

KINDS: tuple[Searchable, ...] = (
    Patches(),
    Blends(),
    Additions(),
    Additions(points=4),
    Waves(),
    Warps(),
    Filters(),
    Generators(),
)
PACE = Pace(batch=12, window=4, windows=6, least=2)


def search(kind: Searchable, level: float, seed: int = 0) -> TriggerSearch:
    clean = toys.clean_set()
    with seeded(seed):
        return TriggerSearch(
            toys.planted().requires_grad_(requires_grad=False),
            kind,
            clean.search,
            Targets(torch.arange(toys.CLASSES), clean.search.labels),
            PACE,
            level,
        )


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_search_stamps_is_what_the_trigger_stamps(kind: Searchable, channels: int) -> None:
    with seeded(0):
        images = torch.rand(3, channels, 7, 9)
        for draw in (kind.start, kind.control):
            raw, levels = (
                draw(2, (channels, 7, 9)),
                torch.tensor(kind.levels[1:3]),
            )  # each row at a level of its own
            kind.settle(raw, levels)
            stamped = kind.stamp(raw, images, levels)
            assert stamped.shape == (2, 3, channels, 7, 9)
            for row in range(2):
                trigger = kind.trigger(raw, row, kind.levels[1 + row], (channels, 7, 9))
                assert trigger.family == kind.family
                assert torch.allclose(trigger.apply(images), stamped[row], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_an_optimised_trigger_keeps_its_level_and_moves_away_from_its_start(
    kind: Searchable,
) -> None:
    run = search(kind, kind.levels[0])
    before = [part.detach().clone() for part in run.raw]
    run.window()
    run.move_to(kind.levels[1])
    run.window()
    limit = kind.levels[1] * (toys.SIZE**2 if kind.family == "patch" else 1)

    assert all(run.trigger(row).norm <= limit * (1 + 1e-4) for row in range(toys.CLASSES))
    assert not any(torch.equal(old, new) for old, new in zip(before, run.raw, strict=True))


def test_the_same_seed_gives_the_same_triggers_and_another_seed_others() -> None:
    rates = []
    for seed in (1, 1, 2):
        with seeded(seed):
            run = search(Additions(), 0.1, seed)
            run.window()
            rates.append(run.raw[0].detach().clone())

    assert torch.equal(rates[0], rates[1])
    assert not torch.equal(rates[0], rates[2])


def test_votes_count_every_picture_once_and_agree_with_successes() -> None:
    run = search(Blends(), 0.2)
    calibration = toys.clean_set().calibration

    votes = run.votes(calibration, toys.CLASSES)
    hits, trials = successes(votes, range(toys.CLASSES))

    assert votes.sum((1, 2)).tolist() == [120] * toys.CLASSES
    assert trials == [100] * toys.CLASSES
    trigger = run.trigger(3)
    others = calibration.pick(calibration.labels != 3)
    assert hits[3] == int((toys.planted()(trigger.apply(others.floats())).argmax(1) == 3).sum())


class Scripted:
    """A search that answers from a table: rates by level."""

    def __init__(self, rates: dict[float, float], levels: tuple[float, ...]) -> None:
        self.rates, self.level, self.pace, self.asked = rates, levels[-1], PACE, []  # type: ignore[var-annotated]
        self.kind = Blends(levels=levels)

    def window(self, rate: float = 1.0) -> Tensor:
        self.asked.append((self.level, rate))
        return torch.tensor([self.rates[self.level]])

    def move_to(self, level: float) -> None:
        self.level = level


def went(rates: dict[float, float]) -> tuple[bool, Scripted]:
    scripted = Scripted(rates, (0.1, 0.2, 0.4))
    told: list[float] = []
    found = descend(
        cast("TriggerSearch", scripted),
        lambda seen: float(seen[0]) > 0.2,
        lambda seen: float(seen[0]) < 0.05,
        told.append,
    )
    assert told == sorted(told)
    assert all(0 < done <= 1 for done in told)
    return found, scripted


def test_the_descent_leaves_a_level_at_once_and_spends_the_rest_on_the_one_it_keeps() -> None:
    found, scripted = went({0.4: 0.9, 0.2: 0.1, 0.1: 0.0})

    assert found
    assert [level for level, _ in scripted.asked] == [0.4] + [0.2] * 5
    assert [rate for _, rate in scripted.asked][-2:] == [1.0, 0.5]


def test_a_descent_that_ends_at_the_bottom_too_strong_finds_no_level() -> None:
    found, scripted = went({0.4: 0.9, 0.2: 0.9, 0.1: 0.9})

    assert not found
    assert scripted.level == 0.1


def test_a_hopeless_level_is_given_up_halfway() -> None:
    found, scripted = went({0.4: 0.0, 0.2: 0.0, 0.1: 0.0})

    assert found
    assert len(scripted.asked) == PACE.windows // 2


def test_departures_are_least_where_each_class_goes_to_one_other_together() -> None:
    labels = torch.arange(6).repeat(4)
    goal, index = Departures(labels[None], 6), torch.arange(24)

    def loss(predicted: Tensor) -> float:
        logits = 20 * torch.nn.functional.one_hot(predicted, 6).float()
        return float(goal.judge(logits[None], slice(0, 1), index)[0])

    together = loss((labels + 1) % 6)
    assert (
        together < loss((labels + 1 + torch.arange(24) // 6) % 6) - 0.5
    )  # all leave, but not together
    assert together < loss(labels) - 5  # all stay, together
    assert together == pytest.approx(
        loss(torch.where(labels == 0, 1, 0)), abs=1e-3
    )  # a mapping to two is one as well


def test_mappings_never_stay_and_shifts_are_told_from_other_permutations() -> None:
    counts = torch.eye(5)[None] * 9 + torch.eye(5).roll(2, 1)[None]

    assert mapping_of(counts)[0].tolist() == [2, 3, 4, 0, 1]
    assert cyclic_share(mapping_of(counts)[0]) == 1
    assert cyclic_share(torch.tensor([1, 0, 3, 2])) == 0.5


def test_shuffling_labels_keeps_their_numbers_and_the_pictures() -> None:
    data = toys.labelled(60, 4)
    with seeded(0):
        mixed = shuffled(data)

    assert torch.equal(mixed.images, data.images)
    assert mixed.labels.bincount().tolist() == data.labels.bincount().tolist()
    assert float((mixed.labels == data.labels).double().mean()) < 0.5
