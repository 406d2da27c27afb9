"""A cell of the sifting benchmark: its numbers against their definitions, and one small run."""

import json

import numpy as np
import pytest
import torch

from benchmarks.data import Dataset
from benchmarks.fitting import Training
from benchmarks.sift import cell
from benchmarks.sift.cell import Cell, at_count, auroc, line, network_time, run
from benchmarks.sift.sets import HONEST
from guard.ml.cleanset import Labelled
from tests import toys


def tiny(train: int, clean: int, test: int) -> Dataset:
    names = tuple(f"class {row}" for row in range(toys.CLASSES))
    parts = [toys.labelled(count, seed) for seed, count in enumerate((train, clean, test))]
    return Dataset("tiny", toys.CLASSES, names, *parts)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cell.SETS, "tiny", tiny)


def made(**changes: object) -> Cell:
    facts = {
        "attack": "patch",
        "rate": 0.1,
        "data": "tiny",
        "train": 360,
        "clean": 420,
        "test": 120,
        "target": 2,
        "model_args": {"depths": [1, 1], "width": 8},
        "training": Training(epochs=10, rate=5e-3),
    }
    return Cell(**{**facts, **changes})  # type: ignore[arg-type]


def test_auroc_counts_pairs_and_ties_by_half() -> None:
    scores, bad = np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])

    assert auroc(scores, bad) == pytest.approx((2 + 0.5) / 4)
    assert auroc(scores, np.zeros(4, bool)) is None


def test_precision_is_read_at_the_number_of_poisoned_images() -> None:
    scores, bad = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])

    assert at_count(scores, bad) == 0.5
    assert at_count(scores, np.zeros(4, bool)) is None


@pytest.mark.parametrize("kind", sorted(HONEST))
def test_an_honest_change_keeps_every_class_and_most_labels(kind: str) -> None:
    data = toys.labelled(360, 1)

    changed = HONEST[kind](data, toys.CLASSES, 0)

    assert set(changed.labels.tolist()) == set(range(toys.CLASSES))
    assert changed.images.shape[1:] == data.images.shape[1:]
    shared = changed.labels[: len(data)] if len(changed) >= len(data) else None
    if shared is not None:
        assert float((shared == data.labels).double().mean()) > 0.8


def test_only_the_outermost_passes_of_networks_are_timed() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))

    with network_time() as spent:
        model(torch.ones(2, 4)).sum().backward()
    within = spent[0]
    model(torch.ones(2, 4))

    assert spent[0] == within > 0


def test_a_cell_finds_its_poison_and_its_row_is_json() -> None:
    methods = {
        "clean_distance": {},
        "label_gap": {"folds": 2, "seen": 3600},
        "fct": {"epochs_b": 1},
    }

    row = run(made(), methods)

    assert row["poison"] == 36
    assert row["joined_auroc"] > 0.9
    assert set(row["methods"]) == set(methods)
    assert 0 < row["network_share"] <= 1
    assert json.loads(json.dumps(row)) == row
    assert "patch 10%" in line(row)


def test_an_honest_cell_has_no_poison_and_no_asr() -> None:
    row = run(made(attack=None, honest="random_mislabels"), {"clean_distance": {}})

    assert row["poison"] == 0
    assert row["asr"] is None
    assert row["recall"] is None
    assert "honest random_mislabels" in line(row)


def test_what_is_honest_is_labelled_data() -> None:
    assert all(
        isinstance(change(toys.labelled(120, 1), toys.CLASSES, 1), Labelled)
        for change in HONEST.values()
    )
