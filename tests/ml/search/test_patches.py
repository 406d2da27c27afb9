"""The search itself.

Its projection, its equality of classes, what it says when it fails, and its fixed budget.
"""

import pytest
import torch
from torch import Tensor, nn

from guard.ml import precision
from guard.ml.search.patches import (
    PatchEffort,
    Patches,
    patches_within,
    project,
    smallest_patches,
    successes,
)
from guard.ml.seeds import seeded
from tests import toys


def test_projection_is_the_nearest_mask_within_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(5, 1, 6, 6, generator=generator)
    budget = torch.tensor([0.5, 2.0, 5.0, 9.0, 1000.0])

    found = project(masks, budget)

    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert bool((found.flatten(1).sum(1) <= budget + 1e-4).all())
    assert torch.equal(found[4], masks[4].clamp(0, 1))
    assert torch.allclose(project(found, budget), found, atol=1e-5)
    # No feasible mask is nearer: random ones, and small moves towards the original.
    for row in range(4):
        distance = float((found[row] - masks[row]).norm())
        for _ in range(200):
            other = torch.rand(1, 1, 6, 6, generator=generator)
            other = (other * budget[row] / other.sum()).clamp(0, 1)
            assert float((other[0] - masks[row]).norm()) >= distance - 1e-4
        moved = project(
            (found[row] + 0.05 * (masks[row] - found[row]))[None], budget[row : row + 1]
        )[0]
        assert float((moved - masks[row]).norm()) >= distance - 1e-3


def test_classes_searched_together_or_alone_need_the_same() -> None:
    clean, model = toys.clean_set(), toys.planted()
    effort = PatchEffort(steps=200, batch=16)
    with seeded(0):
        together = smallest_patches(
            model, clean.search, torch.arange(toys.CLASSES), effort, lambda done: None
        )
    alone = []
    for target in range(toys.CLASSES):
        with seeded(0):
            alone.append(
                smallest_patches(
                    model, clean.search, torch.tensor([target]), effort, lambda done: None
                )
            )

    for row, single in enumerate(alone):
        assert float(together.norms[row]) == pytest.approx(float(single.norms[0]), rel=0.35)


def test_a_class_out_of_reach_is_censored_at_the_whole_image() -> None:
    class Never(toys.Matcher):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) - 1e4 * nn.functional.one_hot(
                torch.tensor(5), toys.CLASSES
            )

    model = Never(toys.prototypes()).eval()
    with seeded(0):
        found = smallest_patches(
            model,
            toys.clean_set().search,
            torch.tensor([5, 1]),
            PatchEffort(steps=60, batch=16),
            lambda done: None,
        )

    assert found.reached.tolist() == [False, True]
    assert float(found.norms[0]) == toys.SIZE**2
    assert float(found.norms[1]) < toys.SIZE**2


def test_a_fixed_budget_is_kept_and_used() -> None:
    clean, model = toys.clean_set(), toys.planted()
    with seeded(0):
        start = smallest_patches(
            model,
            clean.search,
            torch.arange(toys.CLASSES),
            PatchEffort(steps=100, batch=16),
            lambda done: None,
        )
        within = patches_within(
            model, clean.search, start, 4.0, PatchEffort(steps=60, batch=16), lambda done: None
        )
    hits, trials = successes(model, clean.calibration, within)
    rates = (hits / trials).tolist()

    assert bool((within.norms <= 4.0 + 1e-3).all())
    assert rates[toys.TARGET] >= 0.95
    assert max(rate for target, rate in enumerate(rates) if target != toys.TARGET) < 0.5
    assert trials.tolist() == [100] * toys.CLASSES


def test_of_two_searches_each_class_keeps_its_smaller_patch() -> None:
    def found(value: float, norms: list[float], reached: list[bool]) -> Patches:
        full = torch.full((2, 1, 3, 3), value)
        return Patches(
            targets=torch.tensor([4, 1]),
            masks=full,
            patterns=full,
            reached=torch.tensor(reached),
            balance=torch.tensor(norms, dtype=torch.float64),
            norms=torch.tensor(norms, dtype=torch.float64),
        )

    best = found(0.1, [9.0, 5.0], [False, True]).or_smaller(found(0.2, [7.0, 6.0], [True, True]))

    assert best.norms.tolist() == [7.0, 5.0]
    assert best.masks[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1])
    assert best.patterns[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.1])
    assert best.reached.tolist() == [True, True]


def test_the_callers_progress_is_told_once_a_window_and_may_end_it() -> None:
    told: list[float] = []
    clean = toys.clean_set()

    def stop(done: float) -> None:
        told.append(done)
        if done >= 0.5:
            raise KeyError

    with seeded(0), pytest.raises(KeyError):
        smallest_patches(
            toys.honest(),
            clean.search,
            torch.arange(6),
            PatchEffort(steps=100, batch=4, window=10),
            stop,
        )

    assert told == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_pictures_of_the_target_class_count_for_nothing() -> None:
    clean = toys.clean_set()
    with seeded(0):
        effort = PatchEffort(steps=10, batch=4)
        start = smallest_patches(
            toys.honest(), clean.search, torch.tensor([1]), effort, lambda done: None
        )
    own = clean.calibration.pick(clean.calibration.labels == 1)
    joined = clean.calibration.pick(clean.calibration.labels != 1)

    hits, trials = successes(toys.honest(), joined, start)
    with_own, trials_with_own = successes(toys.honest(), clean.calibration, start)

    assert len(own) > 0
    assert (hits.tolist(), trials.tolist()) == (with_own.tolist(), trials_with_own.tolist())


def test_a_search_in_bfloat16_finds_what_one_in_float32_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clean, model = toys.clean_set(), toys.planted()
    norms = []
    for half in (False, True):
        monkeypatch.setattr(precision, "_multiplies", lambda _kind, half=half: half)
        with seeded(0):
            found = smallest_patches(
                model,
                clean.search,
                torch.arange(toys.CLASSES),
                PatchEffort(steps=200, batch=16),
                lambda done: None,
            )
        assert found.masks.dtype == torch.float32
        norms.append(found.norms)

    assert not torch.equal(*norms)
    assert norms[0].argmin() == norms[1].argmin()
    assert float((norms[1] / norms[0]).log().abs().max()) < 0.3
