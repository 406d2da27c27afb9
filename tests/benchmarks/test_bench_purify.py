"""The evaluation of defenses: numbers with known answers, failures counted, nothing left out."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench_purify
from benchmarks.purify import numbers
from benchmarks.purify.running import compared, fraction_of
from benchmarks.zoo import ZooModel
from guard.ml.cleanset import Labelled
from tests import toys


def a_row(model: str, defense: str, asr: float | None, *, loss: float = 0.01, **fields: Any) -> dict[str, Any]:
    before: dict[str, Any] = {"acc": 0.9, "recall": [0.9, 0.9], "asr": None if asr is None else 1.0, "ra": None}
    after = {"acc": 0.9 - loss, "recall": [0.9, 0.9 - 2 * loss], "asr": asr, "ra": None}
    return {"model": model, "defense": defense, "fraction": 0.05, "seed": 0, "attack": model.partition("-")[0],
            "backdoored": asr is not None, "before": before, "after": after, "seconds": 2.0, "peak_mib": 10,
            **compared(before, after), **fields}


ROWS = [
    a_row("patch-1", "a", 0.0), a_row("patch-2", "a", 0.1), a_row("wanet-1", "a", 0.5), a_row("none-1", "a", None),
    a_row("patch-1", "fine_tune", 0.2), a_row("patch-2", "fine_tune", 0.3), a_row("wanet-1", "fine_tune", 0.7),
    {"model": "sig-1", "defense": "a", "fraction": 0.05, "seed": 0, "attack": "sig", "backdoored": True,
     "failed": "nothing_found"},
]


def test_der_counts_only_a_loss_of_accuracy_and_a_fall_of_asr() -> None:
    before = {"acc": 0.9, "recall": [0.8, 1.0], "asr": 0.6}

    assert compared(before, {"acc": 0.8, "recall": [0.7, 0.9], "asr": 0.1})["der"] == pytest.approx((0.5 - 0.1 + 1) / 2)
    assert compared(before, {"acc": 0.95, "recall": [0.9, 1.0], "asr": 0.9})["der"] == 0.5
    assert compared(before, {"acc": 0.9, "recall": [0.9, 0.7], "asr": 0.0})["worst_class_loss"] == pytest.approx(0.3)


def test_a_repair_that_failed_is_counted_and_honest_models_stand_apart() -> None:
    line = next(line for line in numbers.summary(ROWS) if line["defense"] == "a")

    assert (line["backdoored"], line["repaired"], line["failed"]) == (4, 3, {"nothing_found": 1})
    assert line["asr"] == pytest.approx(0.2)
    assert line["worst_attack_asr"] == 0.5
    assert line["honest"] == 1


def test_gain_over_the_baseline_is_paired_by_model() -> None:
    gains = numbers.against(ROWS)

    assert [(gain["defense"], gain["models"]) for gain in gains] == [("a", 3)]
    assert gains[0]["der_gain"] == {key: pytest.approx(0.1) for key in ("mean", "low", "high")}


def test_the_page_names_every_attack_that_was_repaired() -> None:
    page = numbers.page(bench_purify.evaluate(ROWS))

    assert "| defense | clean | patch | wanet |" in page
    assert "nothing_found 1" in page


def test_a_fraction_keeps_classes_and_parts_and_leaves_the_hold_out_alone() -> None:
    whole = toys.curated()
    count = (len(whole.search) + len(whole.calibration)) // 2
    some, again = fraction_of(whole, count, 3), fraction_of(whole, count, 3)

    assert abs(len(some.search) + len(some.calibration) - count) <= toys.CLASSES
    assert set(some.search.labels.tolist()) == set(range(toys.CLASSES)) == set(some.calibration.labels.tolist())
    assert torch.equal(some.search.images, again.search.images)
    assert not torch.equal(some.search.images[:20], fraction_of(whole, count, 4).search.images[:20])
    assert some.holdout is whole.holdout
    assert is_part(some.search, whole.search)
    assert some.facts.search == len(some.search)


def test_more_pictures_than_there_are_is_an_error_that_says_how_many() -> None:
    with pytest.raises(ValueError, match="100000 were asked for"):
        fraction_of(toys.curated(), 100_000, 0)


def is_part(some: Labelled, whole: Labelled) -> bool:
    known = {picture.numpy().tobytes() for picture in whole.images}
    return all(picture.numpy().tobytes() in known for picture in some.images)


def test_the_tournament_stands_beside_each_defense_on_the_models_that_both_repaired() -> None:
    rows = [*ROWS, a_row("patch-1", "tournament", 0.0, loss=0.03), a_row("patch-2", "tournament", 0.0, loss=0.03)]

    lines = {line["defense"]: line for line in numbers.beside(rows, "tournament")}

    assert set(lines) == {"a", "fine_tune"}
    assert lines["a"]["models"] == 2
    assert lines["a"]["asr"]["mean"] == pytest.approx(-0.05)
    assert lines["a"]["loss"]["mean"] == pytest.approx(0.02)
    assert lines["a"]["der"]["mean"] == pytest.approx((0.05 - 0.02) / 2)


def test_only_what_a_record_rejected_is_repaired(tmp_path: Path) -> None:
    rows = [{"name": "one", "backdoored": True, "rules": {"verdict": "rejected"}},
            {"name": "two", "backdoored": True, "rules": {"verdict": "held"}},
            {"name": "three", "backdoored": False, "rules": {"verdict": "rejected"}}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    models = [ZooModel(tmp_path / row["name"], {"name": row["name"], "works": True, "backdoored": row["backdoored"]})
              for row in rows]

    def options(**changes: Any) -> Namespace:
        return Namespace(**{"only": "", "detected": None, "sample": None, **changes})

    assert [one.name for one in bench_purify.chosen(models, options(detected=tmp_path))] == ["one"]
    assert len(bench_purify.chosen(models, options(sample=2))) == 2
    assert bench_purify.chosen(models, options(sample=2)) == bench_purify.chosen(models, options(sample=2))


def test_what_a_tournament_cleared_is_no_repair_and_its_time_is_that_of_all_candidates() -> None:
    candidates = [{"defense": "a", "failed": "x"}, {"defense": "b", "seconds": 10.0}, {"defense": "c", "seconds": 20.0}]
    rows = [a_row("patch-1", "tournament", 0.0, verdict="purified", winner="c", candidates=candidates),
            a_row("patch-2", "tournament", 1.0, verdict="cleared", winner=None, candidates=[])]

    (line,) = numbers.summary(rows)

    assert (line["backdoored"], line["repaired"], line["asr"]) == (2, 1, 0.0)
    assert line["verdicts"] == {"cleared": 1, "purified": 1}
    assert line["time_over_winner"] == 1.5
    assert line["der_all"]["mean"] == pytest.approx((line["der"]["mean"] + 0.5) / 2)


def test_published_numbers_stand_beside_those_that_were_measured() -> None:
    page = numbers.page(bench_purify.evaluate(ROWS))

    assert "| fine_tune | 5% | 1.0, 40.0, 79.5 | -0.6, 38.8, 78.5 |" in page
