"""MESA's claim: what is counted, and that both repairs know the patch's size alone."""

from typing import Any

import pytest
import torch

from benchmarks.bench_mesa import SIDE, point
from benchmarks.purify.mesa_report import page, summary
from tests import toys


def a_row(before: float, **rates: float) -> dict[str, Any]:
    return {
        name: {"asr": asr, "acc": 0.9}
        for name, asr in {"before": before, "fine-tuning": 0.5, **rates}.items()
    }


def test_an_attack_that_did_not_work_counts_for_no_repair() -> None:
    rows = [
        a_row(0.9, point=0.4, ensemble=0.1),
        a_row(0.8, point=0.2, ensemble=0.3),
        a_row(0.3, point=1.0, ensemble=1.0),
    ]

    found = summary(rows)

    assert (found["patterns"], found["worked"]) == (3, 2)
    assert found["point"] == {
        "asr": pytest.approx(0.3),
        "worst_asr": 0.4,
        "acc": pytest.approx(0.9),
    }
    assert found["ensemble"]["worst_asr"] == 0.3
    told = page(
        {
            "summary": found,
            "model": "m",
            "acc": 0.9,
            "clean": 10,
            "stamped": 0.2,
            "models": {"m": found},
        }
    )
    assert "| point | 30.0% | 40.0% |" in told
    assert "10 clean images, 20% of them under a trigger." in told
    assert "Worst ASR on each" not in told


def test_of_several_models_each_is_told_by_its_own_attacks() -> None:
    one, two = [a_row(0.9, point=0.4, ensemble=0.1)], [a_row(0.3, point=0.4, ensemble=0.1)]

    told = page(
        {
            "summary": summary(one + two),
            "model": "m, n",
            "acc": 0.9,
            "clean": 10,
            "stamped": 0.2,
            "models": {"m": summary(one), "n": summary(two)},
        }
    )

    assert "| m | 1/1 | 90.0% | 50.0% | 40.0% | 10.0% |\n| n | 0/1 | – | – | – | – |" in told


def test_the_one_patch_that_is_recovered_has_the_known_size_and_lands_anywhere() -> None:
    torch.manual_seed(0)
    model, data = toys.planted(whole=True), toys.labelled(60, 2)
    stamp, images = point(model, data, toys.TARGET), data.floats()

    changed = (stamp(images) != images).any(1)

    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
    assert int(rows.max()) <= SIDE
    assert int(columns.max()) <= SIDE
    assert len({tuple(torch.nonzero(one)[0].tolist()) for one in changed if bool(one.any())}) > 5
