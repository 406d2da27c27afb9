"""The distribution that was learnt is trained away, gently, and only where something was found."""

import copy

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.defenses.mesa_removal import MesaRemoval, stamp, success
from guard.ml.measure import accuracy
from guard.ml.search.fresh_patches import TriggerSet
from guard.ml.search.outlier_patches import unusual_patches
from guard.ml.search.patches import PatchEffort
from guard.ml.seeds import seeded
from tests import toys

QUICK = MesaRemoval(search_steps=100, learn_steps=80, rounds=12)


def attackers(model: nn.Module) -> float:
    """ASR of the planted rule's own trigger, which the defense never saw."""
    data = toys.labelled(180, 3)
    others = data.pick(data.labels != toys.TARGET)
    with torch.no_grad():
        said = model(toys.stamped(others.images).float() / 255).argmax(1)
    return float((said == toys.TARGET).double().mean())


@pytest.fixture(scope="module")
def sets() -> list[TriggerSet]:
    """What is learnt about the planted rule."""
    model, clean = toys.planted(whole=True), toys.clean_set()
    with seeded(0):
        found = unusual_patches(
            model, clean, PatchEffort(steps=100, batch=16), silent, alpha=0.05, fold=1.5, far=2.5
        )
        return QUICK.learn(model, clean.search, found, silent)


def test_each_accused_class_is_learnt_at_every_size(sets: list[TriggerSet]) -> None:
    pixels = [len(one.region.places) for one in sets]

    assert {one.target for one in sets} == {toys.TARGET}
    assert len(sets) == QUICK.sizes
    assert pixels == sorted(set(pixels))


def test_a_planted_rule_is_unlearnt_and_accuracy_kept(sets: list[TriggerSet]) -> None:
    model, fresh = toys.planted(whole=True), toys.labelled(120, 9)
    assert attackers(model) > 0.95
    assert success(model, fresh, sets) > 0.8

    repaired = QUICK(model, toys.clean_set(), seed=0)

    assert attackers(repaired) < 0.1
    assert success(repaired, fresh, sets) < 0.1
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_a_gentle_rate_that_is_enough_is_not_raised(sets: list[TriggerSet]) -> None:
    told: set[str] = set()

    def listen(done: float, note: str = "") -> None:
        told.update(word for word in note.replace(",", "").split() if word.startswith("0."))

    steep = MesaRemoval(search_steps=100, learn_steps=80, rounds=12, rate=0.03, looks=1)
    steep(toys.planted(whole=True), toys.clean_set(), seed=0, progress=listen)

    assert told == {"0.03"}


def test_every_picture_is_stamped_once_and_sets_share_a_batch(sets: list[TriggerSet]) -> None:
    images = toys.labelled(7, 4).floats()
    sizes = sorted(len(one.region.places) for one in sets)

    changed = (stamp(images, sets) != images).flatten(1).sum(1)

    assert len(changed) == 7
    assert int((changed > sizes[0]).sum()) in {3, 4}
    assert int(changed.max()) <= sizes[-1]


def test_batch_norm_statistics_stay() -> None:
    model = toys.planted(whole=True)
    before = copy.deepcopy(dict(model.named_buffers()))

    repaired = QUICK(model, toys.clean_set(), seed=0)

    assert all(torch.equal(before[name], value) for name, value in repaired.named_buffers())


def test_where_nothing_stands_out_nothing_is_unlearnt() -> None:
    with pytest.raises(MethodFailed) as caught:
        QUICK(toys.honest(), toys.clean_set(), seed=0)

    assert caught.value.code == "nothing_found"


def test_few_classes_are_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        MesaRemoval()(toys.honest(), toys.few_classes(), seed=0)

    assert caught.value.code == "few_classes"
