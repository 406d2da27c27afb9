"""Retraining without suspects is free of what the sift found, and only of that."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.retrainers import _shared
from guard.retrainers._base import Retrained
from guard.retrainers.sifted import Sifted, _times
from guard.trainsets import Sifted as Sift
from guard.trainsets import TrainingSet
from tests import toys
from tests.retrainers import sets


def trained(found: Sift, train: TrainingSet | None = None, **changes: Any) -> Retrained:
    return Sifted(**{**Sifted.quick(), **changes})(
        toys.manifest(),
        train or sets.poisoned(),
        toys.clean_set(),
        found,
        checkpoint=sets.Memory(),
        seed=1,
        device="cpu",
    )


def test_a_backdoor_that_no_sift_found_is_learnt() -> None:
    assert toys.success(trained(sets.sift(suspects=False)).model) > 0.9


def test_no_accused_image_is_trained_on_and_no_proof_is_read() -> None:
    found = sets.sift()
    train, seen = sets.watched(sets.poisoned())
    only, dropped = sets.watched(sets.poisoned())

    made = trained(found, train, epochs=1, look_epochs=1)
    plain = trained(found, only, epochs=1, alike=1.0)

    assert not seen & set(found.proof.tolist())
    assert dropped == set(range(sets.POISONED, sets.IMAGES))
    assert plain.numbers["images"] == sets.IMAGES - sets.POISONED
    assert made.numbers["images"] == plain.numbers["images"] - made.numbers["alike"]


def test_poison_that_the_sift_missed_is_left_out_by_what_was_found() -> None:
    """A third of the poison is found; what it has in common shows the rest."""
    whole = sets.sift()
    teach = np.arange(sets.POISONED // 3)
    found = replace(
        whole, suspects=teach, proof=np.empty(0, np.int64), relabelled=np.full(len(teach), -1)
    )

    blind = trained(found, alike=1.0)
    seeing = trained(found, look_epochs=20)

    assert toys.success(blind.model) > 0.9
    assert toys.success(seeing.model) < 0.2
    missed = sets.POISONED - len(teach)
    assert missed <= seeing.numbers["alike"] <= missed + 10


def test_without_trusted_images_or_enough_suspects_only_suspects_are_dropped() -> None:
    found, few = sets.sift(), np.arange(5)

    nobody = trained(replace(found, trusted=np.empty(0, np.int64)), epochs=1)
    hardly = trained(replace(found, suspects=few, relabelled=np.full(5, -1)), epochs=1)

    assert nobody.numbers["alike"] == hardly.numbers["alike"] == 0


def test_what_was_accused_has_no_influence_whatever_it_is() -> None:
    train = sets.poisoned()
    labels = train.labels.copy()
    labels[: sets.POISONED] = 0
    other = replace(train, labels=labels)

    one, two = (trained(sets.sift(), given, epochs=2, look_epochs=1) for given in (train, other))

    assert sets.same_weights(one.model, two.model)


def test_the_clean_set_is_trained_on_only_when_asked_for() -> None:
    without, with_it = (trained(sets.sift(), epochs=1, clean_images=flag) for flag in (False, True))
    more = len(toys.clean_set().together())

    assert with_it.numbers["images"] - without.numbers["images"] == more
    assert not sets.same_weights(with_it.model, without.model)


def test_clean_images_come_with_their_own_labels() -> None:
    found, few = sets.sift(), np.arange(sets.POISONED, sets.POISONED + 60)
    rest = np.setdiff1d(np.arange(sets.IMAGES), few)
    made = trained(
        replace(found, suspects=rest[: len(rest) // 2], proof=rest[len(rest) // 2 :]),
        clean_images=True,
        epochs=8,
        alike=1.0,
    )
    hold_out = toys.labelled(180, 3)
    right = made.model(hold_out.floats()).argmax(1) == hold_out.labels

    assert float(right.float().mean()) > 0.8


def test_mirroring_is_a_choice() -> None:
    one, two = (trained(sets.sift(), epochs=1, mirror=flag) for flag in (False, True))

    assert not sets.same_weights(one.model, two.model)


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), toys.CLASSES + 1), float("nan"))


def test_a_network_that_broke_does_not_pass_for_one_that_found_nothing() -> None:
    with pytest.raises(MethodFailed) as failed:
        _shared.chances(Broken(), sets.poisoned(), np.arange(5), np.full(5, 3), torch.device("cpu"))

    assert failed.value.code == "non_finite"


@pytest.mark.parametrize(("others", "own"), [(1000, 80), (1000, 30), (90, 200), (900, 100)])
def test_suspects_are_their_share_at_least(others: int, own: int) -> None:
    times = _times(0.1, others, own)

    assert times * own >= 0.1 * (others + times * own)
    assert times == 1 or (times - 1) * own < 0.1 * (others + (times - 1) * own)


def test_who_leaves_out_too_much_is_advised_to_look_for_nothing() -> None:
    with pytest.raises(MethodFailed) as failed:
        trained(sets.sift(), epochs=1, look_epochs=1, alike=0.0)

    assert failed.value.code == "too_few_images"
    assert "alike=1" in failed.value.sentence
