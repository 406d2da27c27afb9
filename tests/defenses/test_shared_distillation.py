"""What fools the model is unlearnt, and the model as it came teaches the rest."""

from dataclasses import replace

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._distilled import views
from guard.defenses.shared_distillation import SharedDistillation
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.search.outlier_patches import PatchStamps
from guard.ml.training.fit import WIDE, by_fan_in
from tests import rules, toys

#: The toy's weights are far apart: a network's rates would not move them.
QUICK = SharedDistillation(
    search_steps=100, steps=80, settle_steps=30, rate=0.05, settle_rate=0.02, windows=4
)


def test_a_planted_patch_is_unlearnt_and_accuracy_kept() -> None:
    model = toys.planted(whole=True)
    assert toys.success(model) > 0.95

    repaired = QUICK(model, toys.clean_set(), seed=0)

    assert toys.success(repaired) < 0.1
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


class MinimalTriggers(rules.Ruled):
    """A rule over the whole image that training can take away; no patch opens its gate."""

    def __init__(self) -> None:
        super().__init__(rules.correlates)
        self.rule = torch.nn.Parameter(torch.tensor(0.6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bonus = torch.zeros(len(images), toys.CLASSES)
        bonus[:, toys.TARGET] = 100 * self.rule * self.gate(images)
        return toys.Matcher.forward(self, images) + bonus


def obeying(model: torch.nn.Module) -> float:
    """ASR of the secret picture, added faintly."""
    data = toys.labelled(180, 3)
    others = data.floats()[data.labels != toys.TARGET]
    said = model((others + 0.05 * rules.secret()).clamp(0, 1)).argmax(1)
    return float((said == toys.TARGET).float().mean())


def test_a_faint_rule_over_the_whole_image_is_unlearnt_by_universal_triggers_alone() -> None:
    model = MinimalTriggers().eval()
    assert obeying(model) > 0.9

    alone = replace(
        QUICK, weight=0.0, alpha=0.0, far=1e9
    )  # no bent pictures, and no class stands out by its patch
    repaired = alone(model, toys.clean_set(), seed=0)
    without = replace(alone, hidden=0.0)(model, toys.clean_set(), seed=0)

    assert obeying(repaired) < 0.2
    assert obeying(without) > 0.5
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_no_label_is_learnt() -> None:
    """Labels only say on which shared examples to act.

    With none of these, wrong labels change nothing.
    """
    model, clean = toys.honest(), toys.clean_set()
    mute = SharedDistillation(
        search_steps=20, steps=20, settle_steps=10, weight=0.0, far=1e9, alpha=0.0, hidden=0.0
    )
    search = type(clean.search)(clean.search.images, clean.search.labels.roll(1))
    wrong = type(clean)(clean.name, clean.digest, clean.classes, search, clean.calibration)

    told_right, told_wrong = (
        mute(model, data, seed=0)(clean.search.floats()) for data in (clean, wrong)
    )

    assert torch.equal(told_right.argmax(1), clean.search.labels)
    assert torch.equal(told_wrong.argmax(1), clean.search.labels)


def test_calibration_pictures_are_taught_as_well() -> None:
    short = SharedDistillation(looks=1, search_steps=2, steps=3, settle_steps=2, windows=1)
    clean = toys.clean_set()
    other = replace(clean, calibration=toys.labelled(len(clean.calibration), 5))

    one, two = (short(toys.planted(), data, seed=0).state_dict() for data in (clean, other))

    assert any(not torch.equal(one[name], value) for name, value in two.items())


def test_the_first_search_sees_the_models_own_head_and_later_ones_a_new_one() -> None:
    heads: list[torch.Tensor] = []

    class Watched(SharedDistillation):
        def _patches(
            self, model: torch.nn.Module, clean: CleanSet, progress: Progress, *, first: bool
        ) -> list[PatchStamps]:
            heads.append(model.get_parameter("inner.linear.weight").detach().clone())
            return super()._patches(model, clean, progress, first=first)

    model = toys.network()
    own = model.get_parameter("inner.linear.weight").detach().clone()
    barely = Watched(
        looks=2, search_steps=2, steps=2, settle_steps=2, windows=1, rate=1e-9, settle_rate=1e-9
    )

    barely(model, toys.clean_set(), seed=0)

    assert torch.equal(heads[0], own)
    assert float((heads[1] - own).abs().max()) > 1e-3


def test_few_classes_have_no_patches_and_are_repaired_all_the_same() -> None:
    clean, told = toys.clean_set(), set()
    few = type(clean)(
        clean.name,
        clean.digest,
        4,
        clean.search.pick(clean.search.labels < 4),
        clean.calibration.pick(clean.calibration.labels < 4),
    )

    SharedDistillation(steps=4, settle_steps=4, windows=1)(
        toys.honest(), few, seed=0, progress=lambda _done, note="": told.add(note)
    )

    assert any("unlearning" in note for note in told)
    assert any("universal" in note for note in told)
    assert not any("patches" in note for note in told)


def test_a_large_clean_set_makes_no_phase_longer() -> None:
    notes: list[str] = []
    short = SharedDistillation(
        looks=1, search_steps=2, steps=3, batch=8, settle_steps=2, settle_batch=8, windows=1
    )

    short(
        toys.honest(),
        toys.clean_set(search=240),
        seed=0,
        progress=lambda _done, note="": notes.append(note),
    )

    assert sum("unlearning" in note for note in notes) == 3
    assert sum("settling" in note for note in notes) == 2


def test_ruin_is_refused() -> None:
    ruinous = SharedDistillation(steps=4, settle_steps=4, rate=1e3, windows=1, head_decay=0.0)

    with pytest.raises(MethodFailed) as caught:
        ruinous(toys.planted(whole=True), toys.clean_set(), seed=0)

    assert caught.value.code in {"accuracy_collapsed", "non_finite"}


def test_views_are_the_pictures_their_blends_and_moved_ones() -> None:
    torch.manual_seed(3)
    images = torch.rand(6, 1, 8, 8)

    plain, blends, moved = views(images, 2).chunk(3)

    assert torch.equal(plain, images)
    low, high = images.amin(0), images.amax(0)
    assert bool(((blends >= low - 1e-6) & (blends <= high + 1e-6)).all())
    assert not torch.equal(blends, images)
    shifts = [
        torch.roll(images, (-down, -right), (2, 3))[:, :, 2:6, 2:6]
        for down in range(-2, 3)
        for right in range(-2, 3)
    ]
    assert any(torch.equal(moved[:, :, 2:6, 2:6], one) for one in shifts)


def test_a_wide_layer_moves_as_much_less_as_it_has_more_inputs() -> None:
    narrow, wide = torch.nn.Linear(8, 3), torch.nn.Linear(4 * WIDE, 3)

    groups = by_fan_in([*narrow.parameters(), *wide.parameters()], 0.1)

    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.1, 3), (0.025, 1)]
