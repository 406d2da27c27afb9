"""D-BR: the ascent is bounded, the paper's is not, and what is kept stays accurate."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.defenses.d_br import DBr
from guard.ml.accused import Accused
from guard.ml.cleanset import joined
from guard.ml.measure import accuracy
from tests import toys


def acc(model: torch.nn.Module) -> float:
    return accuracy(model, toys.labelled(180, 3), toys.CLASSES).overall


def loss_on_suspects(model: torch.nn.Module, accused: Accused) -> float:
    with torch.no_grad():
        return float(cross_entropy(model(accused.suspects.floats()), accused.suspects.labels))


def test_the_backdoor_goes_and_the_accuracy_stays() -> None:
    model, accused = toys.network(), toys.accused()
    repaired = DBr().informed(accused)(model, toys.clean_set(), seed=0)

    assert toys.success(model) >= 0.75
    assert toys.success(repaired) <= 0.1
    assert acc(repaired) >= acc(model) - 0.02


def test_the_published_way_at_its_own_rate_hardly_moves_a_small_model() -> None:
    model, accused = toys.network(), toys.accused()
    repaired = DBr(published=True).informed(accused)(model, toys.clean_set(), seed=0)

    assert toys.success(repaired) > 0.5
    assert any(
        not torch.equal(one, two)
        for one, two in zip(model.parameters(), repaired.parameters(), strict=True)
    )


def test_a_suspect_at_chance_is_not_pushed_any_further() -> None:
    model, accused = toys.network(), toys.accused()
    repaired = DBr(rounds=12).informed(accused)(model, toys.clean_set(), seed=0)

    # Relearning makes them images of their own class; the ascent alone would not end.
    assert loss_on_suspects(repaired, accused) < 40


def test_the_logits_of_the_upload_are_kept() -> None:
    model, accused = toys.network(), toys.accused()
    images = toys.labelled(180, 3).floats()

    def moved(keep: float) -> float:
        repaired = DBr(keep=keep).informed(accused)(model, toys.clean_set(), seed=0)
        with torch.no_grad():
            return float((repaired(images) - model(images)).abs().mean())

    assert moved(1.0) < moved(0.0)


def test_clean_images_among_the_suspects_cost_little() -> None:
    model, accused = toys.network(), toys.accused()
    target = toys.labelled(240, 11)
    mixed = target.pick(target.labels == toys.TARGET).pick(torch.arange(4))
    wrong = Accused(
        joined(accused.suspects, mixed),
        torch.cat([accused.relabelled, mixed.labels]),
        accused.trusted,
    )
    repaired = DBr().informed(wrong)(model, toys.clean_set(), seed=0)

    assert acc(repaired) >= acc(model) - 0.03
    # They are pushed away from their class and called back, which slows the unlearning.
    assert toys.success(repaired) <= toys.success(model) / 3


def test_a_repair_that_loses_the_task_at_every_round_is_refused() -> None:
    broken = DBr(ascent=100.0, keep=0.0, rounds=1).informed(toys.accused())
    with pytest.raises(MethodFailed, match="D-BR lowered the accuracy") as failed:
        broken(toys.network(), toys.clean_set(), seed=0)

    assert failed.value.code == "accuracy_collapsed"


@pytest.mark.parametrize("kind", ["suspects", "trusted"])
def test_too_few_images_of_a_kind_are_named(kind: str) -> None:
    accused = toys.accused()
    empty = accused.trusted.pick(torch.arange(0))
    none = (
        replace(accused, suspects=empty) if kind == "suspects" else replace(accused, trusted=empty)
    )
    with pytest.raises(MethodFailed, match="training images; there are 0") as failed:
        DBr(published=True).informed(none)(toys.network(), toys.clean_set(), seed=0)

    assert failed.value.code == "no_suspects"
