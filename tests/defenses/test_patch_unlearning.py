"""What the search finds is trained away, and only where something was found."""

import pytest

from guard.core.errors import MethodFailed
from guard.defenses.patch_unlearning import PatchUnlearning
from guard.ml.measure import accuracy
from tests import toys


def test_a_planted_rule_is_unlearnt_and_accuracy_kept() -> None:
    model = toys.planted(whole=True)
    assert toys.success(model) > 0.95

    repaired = PatchUnlearning()(model, toys.clean_set(), seed=0)

    assert toys.success(repaired) < 0.1
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall > 0.95


def test_where_nothing_stands_out_nothing_is_unlearnt() -> None:
    with pytest.raises(MethodFailed) as caught:
        PatchUnlearning()(toys.honest(), toys.clean_set(), seed=0)

    assert caught.value.code == "nothing_found"


def test_few_classes_are_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        PatchUnlearning()(toys.honest(), toys.few_classes(), seed=0)

    assert caught.value.code == "few_classes"
