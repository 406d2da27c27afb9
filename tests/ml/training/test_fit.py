"""The fine-tuning loop and its checks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import Cancelled, MethodFailed
from guard.core.progress import silent
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.training.fit import Objective, fit, require_accuracy, require_images
from tests import toys


def run(
    model: nn.Module,
    objective: Objective | None = None,
    *,
    rounds: int = 2,
    batch: int = 50,
    rate: float = 0.1,
    **options: Any,
) -> int:
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    loss = objective or (lambda images, labels: cross_entropy(model(images), labels))
    return fit(
        model,
        toys.labelled(120, 1),
        loss,
        optimiser,
        rounds=rounds,
        batch=batch,
        **{"progress": silent, **options},
    )


def test_every_picture_is_seen_once_a_pass_as_floats_with_its_own_label() -> None:
    data, model = toys.labelled(120, 1), toys.honest()
    seen: list[tuple[Tensor, int]] = []

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        seen.extend(zip(images, labels.tolist(), strict=True))
        return cross_entropy(model(images), labels)

    run(model, objective, rounds=2, batch=50)

    def key(image: Tensor, label: int) -> bytes:
        return bytes([label]) + (image * 255).round().to(torch.uint8).numpy().tobytes()

    wanted = sorted(
        key(image, label) for image, label in zip(data.floats(), data.labels.tolist(), strict=True)
    )
    assert sorted(key(*item) for item in seen[:120]) == wanted
    assert sorted(key(*item) for item in seen[120:]) == wanted
    assert [key(*item) for item in seen[:120]] != [key(*item) for item in seen[120:]]


def test_the_loss_goes_down() -> None:
    model, data = toys.honest(), toys.labelled(120, 1)
    model.weight.data.mul_(0.1)

    before = cross_entropy(model(data.floats()), data.labels).detach()
    run(model, rounds=10)

    assert bool(cross_entropy(model(data.floats()), data.labels) < before / 2)


def test_terms_are_descended_as_their_sum_and_each_is_made_when_the_one_before_is_used_up() -> None:
    one, two, made = toys.honest(), toys.honest(), []

    def term(model: nn.Module, images: Tensor, labels: Tensor, sign: float) -> Tensor:
        return sign * cross_entropy(model(images * sign), labels)

    def terms(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        for sign in (1.0, -0.5):
            made.append(sum(weight.grad is not None for weight in two.parameters()))
            yield term(two, images, labels, sign)

    torch.manual_seed(3)
    run(
        one,
        lambda images, labels: term(one, images, labels, 1.0) + term(one, images, labels, -0.5),
        rounds=1,
    )
    torch.manual_seed(3)
    run(two, terms, rounds=1)

    assert made[:2] == [0, len(list(two.parameters()))]
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_later_term_that_is_not_finite_moves_no_weight() -> None:
    model = toys.honest()
    before = [weight.detach().clone() for weight in model.parameters()]

    with pytest.raises(MethodFailed, match="not finite"):
        run(
            model,
            lambda images, labels: iter(
                (
                    cross_entropy(model(images), labels),
                    cross_entropy(model(images), labels) * torch.nan,
                )
            ),
        )

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_progress_is_told_after_every_step_and_ends_at_one() -> None:
    told: list[float] = []

    run(toys.honest(), rounds=3, batch=50, progress=lambda done, note="": told.append(done))

    assert told == pytest.approx([step / 9 for step in range(1, 10)])


def test_what_progress_raises_ends_the_loop() -> None:
    model, steps = toys.honest(), []

    def stop(done: float, note: str = "") -> None:
        steps.append(done)
        if len(steps) == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        run(model, progress=stop)

    assert len(steps) == 2


def test_after_round_can_end_it() -> None:
    assert run(toys.honest(), rounds=9, after_round=lambda finished: finished == 3) == 3
    assert run(toys.honest(), rounds=4, after_round=lambda finished: False) == 4


def test_a_loss_that_is_not_finite_is_refused_before_the_weights_move() -> None:
    model = toys.honest()
    before = model.weight.detach().clone()

    with pytest.raises(MethodFailed) as caught:
        run(model, lambda images, labels: cross_entropy(model(images), labels) * float("nan"))

    assert caught.value.code == "non_finite"
    assert torch.equal(before, model.weight)


def test_draws_of_the_objective_do_not_change_the_order_of_the_pictures() -> None:
    def order(draws: int) -> list[int]:
        model, seen = toys.honest(), []

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            torch.rand(draws)
            seen.extend(labels.tolist())
            return cross_entropy(model(images), labels)

        torch.manual_seed(4)
        run(model, objective)
        return seen

    with torch.random.fork_rng():
        assert order(0) == order(7)


def test_decay_is_one_cycle_that_ends_near_zero() -> None:
    model, rates = toys.honest(), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        rates.append(optimiser.param_groups[0]["lr"])
        return cross_entropy(model(images), labels)

    fit(
        model,
        toys.labelled(120, 1),
        objective,
        optimiser,
        rounds=10,
        batch=60,
        progress=silent,
        decay=True,
    )

    assert max(rates) == pytest.approx(0.5)
    assert rates[0] < 0.05
    assert rates[-1] < 0.02


def test_too_few_images_of_a_class_are_named_with_the_number_needed() -> None:
    search = toys.labelled(60, 1)
    keep = (search.labels != 4) | (torch.arange(60) < 12)
    clean = CleanSet("toy", "0" * 64, toys.CLASSES, search.pick(keep), toys.labelled(30, 2))

    with pytest.raises(
        MethodFailed, match="at least 5 search images of every class; class 4 has 2"
    ) as caught:
        require_images(clean, per_class=5, method="It")

    assert caught.value.code == "too_few_images"
    require_images(toys.clean_set(), per_class=5, method="It")


def test_a_class_without_calibration_images_is_named() -> None:
    calibration = toys.labelled(30, 2)
    clean = CleanSet(
        "toy",
        "0" * 64,
        toys.CLASSES,
        toys.labelled(60, 1),
        calibration.pick(calibration.labels != 3),
    )

    with pytest.raises(MethodFailed, match="class 3 has none"):
        require_images(clean, per_class=5, method="It")


def test_an_empty_clean_set_is_too_small() -> None:
    empty = Labelled(
        torch.zeros(0, 1, 12, 12, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    )

    with pytest.raises(MethodFailed, match="has 0"):
        require_images(
            CleanSet("toy", "0" * 64, toys.CLASSES, empty, empty), per_class=5, method="It"
        )


def test_collapsed_accuracy_is_refused_and_kept_accuracy_returned() -> None:
    good, ruined = toys.honest(), toys.honest()
    ruined.weight.data.neg_()

    assert require_accuracy(good, toys.clean_set(), 1.0, drop=0.1, method="It") >= 0.9
    with pytest.raises(MethodFailed) as caught:
        require_accuracy(ruined, toys.clean_set(), 1.0, drop=0.1, method="It")

    assert caught.value.code == "accuracy_collapsed"
