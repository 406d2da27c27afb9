"""A long training goes on where it was, to the bit, whatever stopped it and wherever."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import Cancelled, LeaseLost, MethodFailed, OutOfTime
from guard.core.progress import Progress, silent
from guard.ml.seeds import random_state, seeded, set_random_state
from guard.ml.training import resumable
from guard.ml.training.resumable import Resumable, Stage, one_cycle, remaining
from tests.retrainers.sets import Memory, same_weights

INPUTS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))


def training(
    checkpoint: Memory,
    progress: Progress,
    *,
    seed: int = 1,
    every: float = 300.0,
    kind: str = "adam",
) -> nn.Module:
    """Two stages that draw from every generator; the second one starts from the first."""
    with seeded(seed):
        first = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 1))
        run = Resumable(checkpoint, progress, every=every)
        run.fit(stage("one", first, kind), 0, 0.5)
        second = nn.Linear(4, 1)
        with torch.no_grad():
            second.weight.add_(first.eval()(INPUTS).mean() * torch.rand(1))
        run.fit(stage("two", second, kind), 0.5, 1)
        return nn.ModuleList([first, second])


def stage(name: str, model: nn.Module, kind: str) -> Stage:
    def loss(index: np.ndarray) -> Tensor:
        noise = random.random() + float(np.random.rand()) + torch.rand(1)
        return (model(INPUTS[torch.from_numpy(index)]) - noise).square().mean()

    makers: dict[str, Any] = {
        "adam": lambda weights: torch.optim.AdamW(weights, lr=0.01, betas=(0.8, 0.95)),
        "sgd": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, nesterov=True),
        "plain": lambda weights: torch.optim.SGD(weights, lr=0.01),
    }
    return Stage(
        name=name,
        modules={"model": model},
        optimiser=makers[kind](model.parameters()),
        images=50,
        loss=loss,
        epochs=4,
        batch=16,
    )


def stopping_after(steps: int, error: type[Exception] = Cancelled) -> Progress:
    left = steps

    def stop(done: float, note: str = "") -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error("enough")

    return stop


@pytest.mark.parametrize("kind", ["adam", "sgd", "plain"])
@pytest.mark.parametrize("steps", range(1, 25))
def test_a_cancelled_training_goes_on_to_the_same_bits(kind: str, steps: int) -> None:
    checkpoint = Memory()
    with pytest.raises(Cancelled):
        training(checkpoint, stopping_after(steps), kind=kind)
    again: list[float] = []

    made = training(checkpoint, lambda done, note="": again.append(done), seed=77, kind=kind)

    assert same_weights(made, training(Memory(), silent, kind=kind))
    assert len(again) == 24 - steps


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 12, 13, 20])
def test_one_that_died_without_a_word_goes_on_from_the_last_pass(steps: int) -> None:
    checkpoint = Memory()
    with pytest.raises(LeaseLost):
        training(checkpoint, stopping_after(steps, LeaseLost))
    again: list[float] = []

    made = training(checkpoint, lambda done, note="": again.append(done))

    assert same_weights(made, training(Memory(), silent))
    assert len(again) == 24 - steps // 3 * 3


def test_nothing_is_written_by_one_that_lost_its_lease() -> None:
    checkpoint = Memory()
    with pytest.raises(LeaseLost):
        training(checkpoint, stopping_after(2, LeaseLost))

    assert checkpoint.saves == 0


def test_one_that_ran_out_of_time_keeps_its_state() -> None:
    checkpoint = Memory()
    with pytest.raises(OutOfTime):
        training(checkpoint, stopping_after(2, OutOfTime))

    assert checkpoint.state is not None
    assert checkpoint.state[1]["step"] == 2


def test_a_state_is_kept_within_a_pass_that_takes_long() -> None:
    often, seldom = Memory(), Memory()
    made = [training(often, silent, every=-1.0), training(seldom, silent)]

    assert (often.saves, seldom.saves) == (24, 8)
    assert same_weights(*made)


def test_a_finished_training_is_not_done_again() -> None:
    checkpoint = Memory()
    first = training(checkpoint, silent)
    saves = checkpoint.saves

    def never(done: float, note: str = "") -> None:
        raise AssertionError

    assert same_weights(first, training(checkpoint, never))
    assert checkpoint.saves == saves


def test_the_optimiser_of_a_finished_stage_is_not_kept() -> None:
    checkpoint = Memory()
    with pytest.raises(Cancelled):
        training(checkpoint, stopping_after(12))
    assert checkpoint.state is not None
    names = checkpoint.state[0]

    assert not any(name.startswith("optimiser/") for name in names)
    assert any(name.startswith("one/model/") for name in names)


def orders(images: int, batch: int, epochs: int) -> list[list[int]]:
    """The places of each step."""
    seen: list[list[int]] = []
    model = nn.Linear(1, 1)

    def loss(index: np.ndarray) -> Tensor:
        seen.append(index.tolist())
        return model(torch.ones(1, 1)).sum()

    with seeded(0):
        Resumable(Memory(), silent).fit(
            Stage(
                name="x",
                modules={"m": model},
                optimiser=torch.optim.SGD(model.parameters(), lr=0.1),
                images=images,
                loss=loss,
                epochs=epochs,
                batch=batch,
            ),
            0,
            1,
        )
    return seen


def test_each_pass_has_its_own_order_and_leaves_out_what_is_no_full_batch() -> None:
    seen = orders(10, 4, 3)

    assert [len(step) for step in seen] == [4] * 6
    passes = [seen[i] + seen[i + 1] for i in (0, 2, 4)]
    assert all(len(set(one)) == 8 for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_fewer_images_than_a_batch_are_one_step() -> None:
    assert [sorted(step) for step in orders(3, 64, 2)] == [[0, 1, 2]] * 2


def test_the_rate_rises_and_falls() -> None:
    rates = [one_cycle(done / 100) for done in range(101)]

    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert rates.index(max(rates)) == 30
    assert rates[0] == pytest.approx(0.04)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    model = nn.Linear(4, 1)
    broken = Stage(
        name="broken",
        modules={"m": model},
        optimiser=torch.optim.SGD(model.parameters(), lr=0.1),
        images=8,
        loss=lambda index: model(INPUTS[:2]).sum() * float("nan"),
        epochs=1,
        batch=4,
    )
    with pytest.raises(MethodFailed, match="broken was not finite at step 1"):
        Resumable(Memory(), silent).fit(broken, 0, 1)


def test_progress_names_stage_pass_and_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(resumable, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    notes: list[tuple[float, str]] = []
    training(Memory(), lambda done, note="": notes.append((done, note)), every=1e9)

    assert notes[0][0] == pytest.approx(1 / 24)
    assert notes[0][1] == "one pass 1 of 4"
    assert notes[-1][1].startswith("two pass 4 of 4, about ")
    assert notes[-1][1].endswith(" left")
    assert [done for done, _ in notes] == sorted(done for done, _ in notes)


@pytest.mark.parametrize(
    ("seconds", "phrase"),
    [
        (0.2, "about 1 s left"),
        (45, "about 45 s left"),
        (240, "about 4 min left"),
        (7200, "about 2.0 h left"),
    ],
)
def test_a_time_is_a_phrase(seconds: float, phrase: str) -> None:
    assert remaining(seconds) == phrase


def test_the_state_of_all_generators_can_be_put_back() -> None:
    def draw() -> tuple[float, ...]:
        return (
            random.gauss(0, 1),
            float(np.random.randn()),
            float(torch.randn(1)),
            random.random(),
        )

    with seeded(3):
        draw()  # leaves half of a Gaussian pair behind in two of them
        state = random_state()
        wanted = [draw() for _ in range(3)]
        set_random_state(*state)

        assert [draw() for _ in range(3)] == wanted
