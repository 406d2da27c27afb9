"""A fresh network learns the task from the model's answers, and not the backdoor."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.manifest import PolarizerPlace
from guard.core.progress import silent
from guard.defenses.fresh_student import FreshStudent, _changes
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.networks.polarizer import Polarizer
from guard.ml.search.battery import battery
from guard.ml.seeds import seeded
from tests import toys

QUICK = FreshStudent(steps=150, batch=32, pilot=0)


def with_labels(clean: CleanSet, labels: torch.Tensor) -> CleanSet:
    """The same set with other labels on its search images, and no others to learn from."""
    return replace(clean, search=Labelled(clean.search.images, labels))


def test_a_backdoor_is_left_behind_and_the_task_is_learnt() -> None:
    model = toys.network()
    assert toys.success(model) > 0.75

    student = QUICK(model, toys.clean_set(), seed=0)

    assert toys.success(student) < 0.2
    assert accuracy(student, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_nothing_of_the_models_weights_is_kept() -> None:
    model = toys.network()

    with seeded(3):
        student = replace(QUICK, steps=1, rate=0.0, decay=0.0, max_drop=1.0).repair(
            model, toys.clean_set(), progress=silent
        )

    mine, theirs = (architectures.export(one) for one in (student, model))
    learnt = [name for name in mine if name.endswith("weight") and mine[name].dim() > 1]
    assert mine.keys() == theirs.keys()
    assert learnt
    assert not any(torch.equal(mine[name], theirs[name]) for name in learnt)


def test_the_model_teaches_what_wrong_labels_cannot() -> None:
    clean = toys.clean_set()
    wrong = with_labels(clean, clean.search.labels.roll(1))
    data = toys.labelled(180, 3)

    by_model = replace(QUICK, labelled=0.0)(toys.network(), wrong, seed=0)
    by_label = replace(QUICK, labelled=1.0, max_drop=1.0)(toys.network(), wrong, seed=0)

    assert accuracy(by_model, data, toys.CLASSES).overall > 0.95
    assert accuracy(by_label, data, toys.CLASSES).overall < 0.95


def test_the_model_is_asked_about_clean_images_alone() -> None:
    model, seen = toys.network(), list[torch.Tensor]()
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    with seeded(3):
        replace(QUICK, steps=2, moved=0.0, changed=3, max_drop=1.0).repair(
            model, toys.clean_set(), progress=silent
        )

    ((known, _),) = toys.clean_set().together().batches(1000)
    taught = [one for one in seen if len(one) == 2 * QUICK.batch]
    assert len(taught) == 2
    for one in taught:
        plain, unmoved = one.flatten(1).chunk(2)
        assert torch.equal(plain, unmoved)
    for one in seen:  # whatever it was asked for
        assert torch.cdist(one.flatten(1), known.flatten(1)).amin(1).max() < 0.05


def test_a_student_heeds_no_random_change() -> None:
    ((images, _),) = toys.labelled(180, 3).batches(180)
    _, channels, height, width = images.shape
    changes = battery(b"no secret of the student's", (channels, height, width), 0)

    def steady(student: torch.nn.Module) -> float:
        with torch.no_grad():
            plain = student(images).argmax(1)
            altered = [
                student(change(images)).argmax(1)
                for family in changes.values()
                for change in family
            ]
        return float(torch.cat([one == plain for one in altered]).double().mean())

    heedless, plain = (
        replace(QUICK, changed=changed)(toys.network(), toys.clean_set(), seed=0)
        for changed in (1, 0)
    )

    assert steady(heedless) > steady(plain) + 0.02


def test_a_layer_that_a_repair_put_in_is_left_out() -> None:
    manifest = toys.manifest(polarizer=PolarizerPlace(before="layer2.0", channels=8))
    model = toys.network(manifest)
    assert any(isinstance(part, Polarizer) for part in model.modules())

    student = replace(QUICK, steps=2, max_drop=1.0)(model, toys.clean_set(), seed=0)

    assert not any(isinstance(part, Polarizer) for part in student.modules())
    assert student.manifest == toys.manifest()


def test_a_network_without_a_manifest_cannot_be_built_again() -> None:
    with pytest.raises(MethodFailed, match="manifest") as refused:
        QUICK(toys.layered(), toys.clean_set(), seed=0)

    assert refused.value.code == "no_manifest"


def test_a_student_that_has_not_learnt_the_task_is_no_repair() -> None:
    with pytest.raises(MethodFailed, match="lowered the accuracy") as refused:
        replace(QUICK, steps=1)(toys.network(), toys.clean_set(), seed=0)

    assert refused.value.code == "accuracy_collapsed"


def test_a_short_pilot_ends_a_hopeless_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = list[int]()
    usual = FreshStudent._teach

    def counted(self: FreshStudent, *given: Any, **more: Any) -> None:
        taught.append(given[3])
        usual(self, *given, **more)

    monkeypatch.setattr(FreshStudent, "_teach", counted)
    clean = toys.clean_set()
    wrong = with_labels(clean, clean.search.labels.roll(1))
    hopeless = replace(QUICK, labelled=1.0, pilot=20)

    with pytest.raises(MethodFailed, match=r"pilot of 20 steps.*larger clean set") as caught:
        hopeless(toys.network(), wrong, seed=0)

    assert caught.value.code == "no_promise"
    assert taught == [20]


def test_a_pilot_changes_nothing_of_the_copy_and_another_draw_everything() -> None:
    brief = replace(QUICK, steps=20, max_drop=1.0)

    plain, piloted, other = (
        architectures.export(replace(brief, **more)(toys.network(), toys.clean_set(), seed=0))
        for more in ({}, {"pilot": 10, "promising": 0.0}, {"draw": 1})
    )

    assert all(torch.equal(plain[name], piloted[name]) for name in plain)
    assert not any(torch.equal(plain[name], other[name]) for name in plain if plain[name].dim() > 1)


def test_large_images_get_fewer_changes_to_learn_from() -> None:
    small, large = (len(_changes((3, side, side))) for side in (16, 224))
    assert 0 < large < small
