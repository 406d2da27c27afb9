"""The baseline: the largest rate at which clean accuracy survives."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.defenses.fine_tune import FineTune
from guard.ml.measure import accuracy
from tests import toys


def test_a_rate_that_ruins_the_model_is_given_up_for_a_smaller_one() -> None:
    told: list[str] = []

    def listen(done: float, note: str = "") -> None:
        told.append(note.partition(",")[0])

    repaired = FineTune(rate=1e6, tries=40, rounds=1)(
        toys.honest(), toys.clean_set(), seed=0, progress=listen
    )

    assert len(set(told)) > 1
    assert accuracy(repaired, toys.labelled(180, 3), toys.CLASSES).overall >= 0.9


def test_a_rate_that_diverges_is_given_up_even_where_batch_norm_keeps_the_wreck() -> None:
    """Running statistics that are not finite belong to the failed try, not to the next one."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, toys.CLASSES)
    )

    repaired = FineTune(rate=1e25, tries=90, rounds=1, max_drop=0.9)(
        model, toys.clean_set(), seed=0
    )

    assert all(bool(torch.isfinite(tensor).all()) for tensor in repaired.state_dict().values())


def test_where_every_rate_ruins_it_nothing_is_returned() -> None:
    with pytest.raises(MethodFailed) as caught:
        FineTune(rate=1e6, tries=2, rounds=1)(toys.honest(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"


@pytest.mark.parametrize(("lost", "kept"), [(1, True), (2, False)])
def test_one_of_few_pictures_may_be_lost(
    monkeypatch: pytest.MonkeyPatch, lost: int, kept: bool
) -> None:
    """Of 40 calibration pictures one percent is less than a picture."""
    clean, right = toys.clean_set(), iter([36, *[36 - lost] * 2])
    clean = replace(clean, calibration=clean.calibration.pick(torch.arange(40)))
    monkeypatch.setattr(
        "guard.defenses.fine_tune.accuracy", lambda *_: SimpleNamespace(overall=next(right) / 40)
    )
    tune = FineTune(tries=2, rounds=1)

    if kept:
        assert tune(toys.honest(), clean, seed=0) is not None
    else:
        with pytest.raises(MethodFailed, match="accuracy"):
            tune(toys.honest(), clean, seed=0)
