"""Relabelling learns from suspects whose true class a reference is sure of, and from no others."""

from dataclasses import replace

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.defenses.relabelling import Relabelling
from guard.ml.accused import Accused
from guard.ml.measure import accuracy
from tests import toys


def test_the_backdoor_goes_and_the_accuracy_stays() -> None:
    model = toys.network()
    repaired = Relabelling().informed(toys.accused())(model, toys.clean_set(), seed=0)

    assert toys.success(model) >= 0.75
    assert toys.success(repaired) <= 0.1
    before, after = (
        accuracy(one, toys.labelled(180, 3), toys.CLASSES).overall for one in (model, repaired)
    )
    assert after >= before - 0.02


@pytest.mark.parametrize("reference", ["unsure", "agrees"])
def test_a_suspect_without_another_sure_class_teaches_nothing(reference: str) -> None:
    accused = toys.accused()
    given = {"unsure": torch.full((40,), -1), "agrees": accused.suspects.labels}[reference]
    with pytest.raises(MethodFailed, match="surely mislabelled training images; there are 0"):
        Relabelling().informed(replace(accused, relabelled=given))(
            toys.network(), toys.clean_set(), seed=0
        )


def test_an_unsure_suspect_is_left_out_of_the_training() -> None:
    accused = toys.accused()
    half = accused.relabelled.clone()
    half[20:] = -1
    few = Accused(accused.suspects.pick(torch.arange(20)), accused.relabelled[:20], accused.trusted)
    one, two = (
        Relabelling(rounds=2).informed(given)(toys.network(), toys.clean_set(), seed=0).state_dict()
        for given in (replace(accused, relabelled=half), few)
    )

    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_repair_that_loses_the_task_is_refused() -> None:
    with pytest.raises(MethodFailed) as failed:
        Relabelling(rate=50.0, rounds=1).informed(toys.accused())(
            toys.network(), toys.clean_set(), seed=0
        )

    assert failed.value.code in {"accuracy_collapsed", "non_finite"}
