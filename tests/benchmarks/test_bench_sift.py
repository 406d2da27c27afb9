"""The sift's exam: its data, what is kept of a cell, the comparison with the truth, the tables."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import bench_sift, evidence_rows, record
from benchmarks.attacks import ATTACKS
from benchmarks.data import Dataset
from benchmarks.fitting import Training
from benchmarks.sift import (
    carried,
    cell,
    exam,
    folder,
    measuring,
    numbers,
    references,
    speed,
    splits,
    tables,
)
from benchmarks.sift.cell import Cell
from benchmarks.sift.exam import CLEAN, Exam
from benchmarks.sift.sets import HONEST
from guard.sifters.label_gap import LabelGap
from guard.trainsets import from_arrays
from tests import toys

SMALL = 420


def tiny(_source: str, seed: int, train: int, clean: int, test: int) -> Dataset:
    names = tuple(f"class {row}" for row in range(toys.CLASSES))
    parts = [toys.labelled(count, seed + nth) for nth, count in enumerate((train, clean, test))]
    return Dataset("tiny", toys.CLASSES, names, *parts)


def small(**changes: Any) -> Exam:
    facts: dict[str, Any] = {
        "attack": "patch",
        "rate": 0.1,
        "parameters": {"size": 3},
        "data": "tiny",
        "train": 360,
        "clean": SMALL,
        "test": 120,
        "target": 2,
        "model_args": {"depths": [1, 1], "width": 8},
        "training": Training(epochs=8, rate=5e-3),
        "seed": 3,
    }
    return Exam(cell=Cell(**{**facts, **changes}), network="resnet", sizes=(SMALL,), compare=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short references, and statistics that train next to nothing."""
    methods = {"clean_distance": {}, "label_gap": {"folds": 2, "seen": 3600}}
    monkeypatch.setattr(measuring, "METHODS", methods)
    monkeypatch.setattr(speed, "METHODS", methods)
    cheap = {name: measuring.PUBLISHED[name] for name in ("fct_upload", "spectral")}
    monkeypatch.setattr(measuring, "PUBLISHED", {"fct": ("fct", {"epochs_b": 1}), **cheap})


def test_every_attack_meets_every_source_and_network_and_names_differ() -> None:
    plans = exam.plan()

    usual = [one for one in plans if one.cell.attack and one.cell.rate == exam.USUAL]
    for attack in exam.POISONED:
        own = [one for one in usual if one.cell.attack == attack]
        if own:
            assert {one.network for one in own} == set(exam.NETWORKS)
            assert {one.cell.data for one in own} == {source for _, source in exam.SPLITS}
            assert {one.cell.seed for one in own} == {seed for seed, _ in exam.SPLITS}
    assert len({one.name for one in plans}) == len(plans)
    assert {one.cell.attack for one in plans if one.cell.attack} <= set(ATTACKS.names())
    assert sum(one.cell.attack is None for one in plans) == exam.HONEST_EACH * len(HONEST) == 30
    assert [one.name for one in exam.plan()] == [one.name for one in plans]


def test_parts_of_a_split_share_no_image_and_keep_their_clean_images_in_every_size() -> None:
    data = splits.split("mnist", 11, 2000, 500, 500)
    other = splits.split("mnist", 11, 1000, 500, 500)

    parts = (data.train, data.clean, data.test)
    seen = [{image.tobytes() for image in part.images.numpy()} for part in parts]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert torch.equal(data.clean.images, other.clean.images)
    assert torch.bincount(data.train.labels).tolist() == [200] * 10


def test_a_smaller_clean_set_is_a_part_of_the_larger() -> None:
    data = toys.labelled(300, 1)

    less = splits.first(data, toys.CLASSES, 10 * toys.CLASSES)

    assert set(torch.bincount(less.labels).tolist()) == {10}
    assert {row.tobytes() for row in less.images.numpy()} <= {
        row.tobytes() for row in data.images.numpy()
    }


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="not a source"):
        splits.split("letters", 1, 10, 10, 10)
    with pytest.raises(ValueError, match="has only"):
        splits.split("mnist", 1, 5000, 1000, 10)


def test_what_a_sift_is_given_has_nothing_of_the_truth(tmp_path: Path) -> None:
    plan = small(training=Training(epochs=1))
    folder.build(plan.cell, tiny("tiny", 3, 360, SMALL, 120), tmp_path / "cell")

    upload, known = folder.opened(tmp_path / "cell"), folder.truth(tmp_path / "cell")

    assert len(upload.train) == len(known.poisoned) == 360
    assert known.poisoned.sum() == 36
    changed = upload.train.labels != known.sources
    assert np.array_equal(changed, known.poisoned)
    with np.load(tmp_path / "cell" / "train.npz") as arrays:
        assert sorted(arrays) == ["images", "labels", "names"]


def test_kept_references_find_what_trained_ones_find(tmp_path: Path) -> None:
    model, clean = toys.network(), toys.curated().visible()
    data = toys.labelled(90, 5)
    train = from_arrays(data.images.numpy(), data.labels.numpy(), tuple("abcdef")[: toys.CLASSES])
    method = LabelGap(folds=2, seen=1500)
    plain = method(model, train, clean, seed=1)

    with references.kept(tmp_path) as first:
        trained = method(model, train, clean, seed=1)
    with references.kept(tmp_path) as second:
        again = method(model, train, clean, seed=1)

    assert (first, second) == ([0, 2], [2, 0])
    for found in (trained, again):
        assert np.array_equal(found.train, plain.train)
        assert np.array_equal(found.null, plain.null)  # type: ignore[arg-type]


def test_poison_that_moves_less_than_clean_images_contradicts_the_claim() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    bad = np.array([True, True, False, False, False, False])
    labels = np.array([0, 0, 0, 0, 1, 1])

    row = measuring.against(scores, bad, labels)

    assert row["auroc"] == row["auroc_same_label"] == 0
    assert row["moved"] == row["moved_same_label"] == 0
    assert measuring.against(-scores, bad, labels)["moved"] == 1
    assert measuring.against(scores, np.zeros(6, bool), labels)["moved"] is None


def row(**changes: Any) -> dict[str, Any]:
    """A sift's row of round numbers."""
    cell = {"attack": "patch", "rate": 0.05, "honest": "plain"}
    return {
        "name": "patch",
        "cell": {**cell, **changes.pop("cell", {})},
        "clean": CLEAN,
        "asr": 0.9,
        "acc": 0.9,
        "poison": 100,
        "joined_auroc": 0.99,
        "flagged": 100,
        "precision": 0.95,
        "recall": 0.95,
        "verdict": "poisoned",
        "replay": 0.85,
        "asr_planted": 0.7,
        "carried": {"family": "patch", "rate": 0.75, "stronger": 0.85},
        "map": None,
        "classes": [],
        "fdr": {str(level): {"n": 100, "true_fdr": 0.05} for level in numbers.LEVELS},
        "methods": {"label_gap": {"auroc": 0.98, "precision_at_count": 0.9}},
        "published": None,
        "references": {"kept": 0, "trained": 3},
        "train_seconds": 10.0,
        "cpu_seconds": 40.0,
        "network_share": 0.9,
        "seen_per_class": 70,
        **changes,
    }


def honest(**changes: Any) -> dict[str, Any]:
    empty = {"asr": None, "poison": 0, "precision": None, "recall": None, "replay": None}
    empty |= {"carried": None, "asr_planted": None}
    return (
        row(cell={"attack": None}, verdict="nothing", name="honest", flagged=0, **empty) | changes
    )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"recall": 0.8}, False),
        ({"precision": None}, False),
        ({"joined_auroc": 0.97}, False),
        ({"cell": {"attack": "adaptive_blend"}, "recall": 0.8, "precision": 0.5}, True),
        ({"cell": {"rate": 0.01}, "recall": 0.8, "joined_auroc": 0.5}, True),
        ({"cell": {"rate": 0.01}, "recall": 0.7}, False),
        ({"cell": {"rate": 0.01}, "recall": 0.1, "poison": 30}, True),
    ],
)
def test_a_cell_meets_the_aims_of_its_attack_and_rate(changes: dict[str, Any], kept: bool) -> None:
    assert numbers.meets(row(**changes)) is kept


def test_precision_is_pooled_over_images_and_weak_cells_stand_apart() -> None:
    rows = [
        row(),
        row(flagged=300, precision=0.8, poison=300, name="other"),
        row(asr=0.4, name="weak"),
    ]

    (line,) = numbers.by_attack_and_rate(numbers.strong(rows))

    assert line["n"] == 2
    assert (line["precision"]["k"], line["precision"]["n"]) == (335, 400)
    page = tables.page(tables.summary(rows, 3, 3))
    assert "| weak | 0.40 |" in page
    assert "| other | 0.90 |" not in page
    assert line["verdicts"] == {"poisoned": 2}


def test_a_carried_trigger_is_compared_with_both_strengths_of_the_true_one() -> None:
    rows = [
        row(),
        row(asr=0.4, carried={"family": "warp", "rate": 0.75, "stronger": 0.6}),
        row(carried=None),
    ]

    *_, line = carried.summed(rows)

    assert (line["n"], line["planted"]["n"]) == (3, 2)
    assert (line["planted"]["k"], line["within"]["k"], line["covered"]["k"]) == (2, 0, 1)
    assert line["width"] == pytest.approx(0.125)


def test_a_rate_of_false_discoveries_is_over_where_it_exceeds_its_estimate_by_more() -> None:
    points = {str(level): {"n": 100, "true_fdr": 0.18} for level in numbers.LEVELS}

    lines = numbers.false_discoveries([row(fdr=points)])

    assert [one["level"] for one in lines if one["over"]] == [0.05, 0.1]


def test_accused_honest_sets_are_counted_with_and_without_those_for_a_person() -> None:
    rows = [honest(), honest(verdict="review"), honest(verdict="poisoned"), row()]

    *_, total = numbers.honest(rows)

    assert (total["accused"]["k"], total["held"]["k"], total["held"]["n"]) == (1, 2, 3)


def test_sizes_are_compared_on_cells_that_have_all_of_them() -> None:
    rows = [row(), row(clean=300, verdict="review"), row(name="large only"), honest()]
    rows.append(honest(clean=300, name="other"))

    large, less = numbers.sizes(rows)

    assert (large["n"], less["n"]) == (1, 1)
    assert less["verdicts"] == {"review": 1}
    assert large["honest"]["n"] == 0


def test_the_page_has_all_tables_and_the_summary_is_json() -> None:
    other = {
        name: {
            **dict.fromkeys(("auroc", "auroc_same_label", "moved", "moved_same_label"), 0.4),
            "precision_at_count": 0.1,
            "cpu_seconds": 5.0,
        }
        for name in ("fct", "fct_upload", "spectral")
    }
    traced = {"label": 1, "poisoning": "dirty-label", "obedience": 0.9, "trigger_asr": 0.8}
    rows = [
        row(published=other, classes=[{**traced, "siblings": None}]),
        row(cell={"rate": 0.01}, name="rare"),
        row(asr=0.2, name="weak"),
        honest(),
    ]

    result = tables.summary(rows, 40, 60, "A note.")
    result["speed"] = {"images": 10, "width": 8, "threads": 2, "seconds": 3.0} | {
        "cpu_seconds": 5.0,
        "network_share": 0.9,
    }
    page = tables.page(result)
    claims = list(evidence_rows.sifts(result))

    assert [claim.n for claim in claims] == ["2; 1; 1"]
    assert json.loads(json.dumps(result))["done"] == {"cells": 4, "sifts": 4}
    assert page.count("\n## ") == 12
    assert "-0.10 to -0.10" in page
    assert "1/1" in page
    assert "not measured here" in page


def test_the_record_has_a_page_a_summary_and_two_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    rows = [row(), honest()]

    place = bench_sift.write(tables.summary(rows, 2, 2) | {"speed": None}, rows)

    assert sorted(file.name for file in place.iterdir()) == [
        *("README.md", "replay.png", "rows.json", "statistics.png", "summary.json"),
    ]
    assert "](statistics.png)" in (place / "README.md").read_text()


def test_the_page_of_no_cell_says_so() -> None:
    page = tables.page(tables.summary([], 40, 60))

    assert page.startswith("0 of 40 cells")


def test_the_benchmark_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = small(), replace(small(attack=None, parameters=None), compare=False)
    monkeypatch.setattr(bench_sift, "plan", lambda: [bad, good])
    monkeypatch.setattr(bench_sift, "split", tiny)

    bench_sift.main(["--out", str(tmp_path), "--minutes", "0"])
    assert "0 of 2 cells" in capsys.readouterr().out
    bench_sift.main(["--out", str(tmp_path), "--pause-while", str(tmp_path / "absent")])
    assert "2 of 2 cells" in capsys.readouterr().out
    times = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*")}
    bench_sift.main(["--out", str(tmp_path)])

    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*")} == times
    found = json.loads((tmp_path / bad.name / f"sift-{SMALL}.json").read_text())
    assert found["poison"] == 36
    assert found["joined_auroc"] > 0.9
    others = json.loads((tmp_path / bad.name / bench_sift.COMPARED).read_text())
    assert {"poisoned_precision", "poison_in_clean"} <= set(others["fct"]["split"])


def test_a_timed_sift_names_its_seconds_and_its_passes(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setitem(cell.SETS, "tiny", lambda *sizes: tiny("tiny", 3, *sizes))

    found = speed.speed(300, source="tiny", threads=1, width=8)

    assert 0 < found["network_share"] <= 1
    assert set(found["methods"]) == {"clean_distance", "label_gap"}
