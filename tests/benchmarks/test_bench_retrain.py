"""Repairs by a sift, and retrainers: numbers by definition, and one small run that goes on."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import bench_retrain, data, evidence_rows
from benchmarks.bench_retrain import collected, place_of, waiting, work
from benchmarks.data import Dataset
from benchmarks.retrain import cells, methods, tables
from benchmarks.retrain.cells import DEVELOPMENT, EXAM, Cell, ground, plan, upload
from benchmarks.retrain.methods import D_BR, METHODS, ORACLE, RELABELLING, SIFTED, TRAP, tried
from benchmarks.retrain.tables import INFORMED, TRAP_CONTROL, page, summary
from guard.core.progress import silent
from tests import toys


def tiny(train: int, clean: int, test: int, *, skip: int = 0) -> Dataset:
    names = tuple(f"class {row}" for row in range(toys.CLASSES))
    parts = [toys.labelled(count, seed + skip) for seed, count in enumerate((train, clean, test))]
    return Dataset("tiny", toys.CLASSES, names, *parts)


SMALL = Cell(attack="patch", rate=0.1, network="tiny", train=240, clean=420, test=120, epochs=6)
QUICK = {"epochs": 2, "replace_epochs": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "fashion_mnist", tiny)
    nets = {"tiny": ("cifar_resnet", {"depths": [1, 1], "width": 8})}
    monkeypatch.setattr(cells, "NETWORKS", nets)
    monkeypatch.setattr(cells, "SIFTERS", {"clean_distance": {}})
    short = {
        ORACLE: replace(METHODS[ORACLE], parameters=MappingProxyType({"epochs": 2})),
        SIFTED: replace(METHODS[SIFTED], parameters=MappingProxyType({"epochs": 2})),
        TRAP: replace(METHODS[TRAP], parameters=MappingProxyType(QUICK)),
        RELABELLING: METHODS[RELABELLING],
    }
    monkeypatch.setattr(bench_retrain, "METHODS", short)
    monkeypatch.setattr(methods, "METHODS", short)


def share(k: int, n: int = 100) -> dict[str, int]:
    return {"k": k, "n": n}


def row(acc: int, asr: int, **more: Any) -> dict[str, Any]:
    return {"acc": share(acc), "asr": share(asr), "seconds": 1.0, **more}


def cell_row(before: Mapping[str, Any], **found: Any) -> dict[str, Any]:
    return {
        "name": "a cell",
        "cell": {"seed": 7},
        "poison": 10,
        "accused": 12,
        "precision": 0.9,
        "recall": 1.0,
        "before": dict(before),
        "methods": found,
    }


def test_exam_cells_have_seeds_of_their_own_and_every_setting_has_all_attacks() -> None:
    exam, development = plan(EXAM), plan(DEVELOPMENT)

    assert {one.seed for one in exam}.isdisjoint(one.seed for one in development)
    assert len({one.name for one in exam}) == len(exam) == 12
    attacked = {(one.attack, one.rate) for one in exam}
    assert all(
        {(one.attack, one.rate) for one in exam if one.seed == seed} == attacked
        for seed in {one.seed for one in exam}
    )


def test_exam_cells_have_other_images_than_development() -> None:
    own, other = (ground(replace(SMALL, part=part)).train for part in (EXAM, DEVELOPMENT))

    assert not np.array_equal(own.rows(np.arange(9)), other.rows(np.arange(9)))


def test_development_sees_no_digit_that_the_exam_is_measured_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data, "mnist", tiny)
    cell = replace(SMALL, data="mnist", attack="blended")
    exam, development = (ground(replace(cell, part=part)) for part in (EXAM, DEVELOPMENT))

    taught = {image.tobytes() for image in exam.train.rows(np.arange(len(exam.train)))}
    poisoned = len(exam.poison)
    tested = {image.numpy().tobytes() for image in exam.test.images}
    own = [image.numpy().tobytes() for image in development.test.images]
    assert not tested.intersection(own)
    assert sum(image not in taught for image in own) <= poisoned
    assert len(development.train) + len(own) == len(exam.train)


def test_a_run_keeps_what_it_did_and_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    first = list(work(tmp_path, [SMALL], [RELABELLING], end=float("inf"), wait=silent))
    weights = (tmp_path / SMALL.name / "upload.safetensors").stat().st_mtime_ns
    second = list(work(tmp_path, [SMALL], [RELABELLING, SIFTED], end=float("inf"), wait=silent))
    third = list(work(tmp_path, [SMALL], [RELABELLING, SIFTED], end=float("inf"), wait=silent))

    assert [line.split(": ")[1] for line in first] == ["before", RELABELLING]
    assert [line.split(": ")[1] for line in second] == ["before", SIFTED]
    assert third == []
    assert (tmp_path / SMALL.name / "upload.safetensors").stat().st_mtime_ns == weights
    assert not list((tmp_path / "state").iterdir())
    (found,) = collected(tmp_path, [SMALL, replace(SMALL, seed=3)])
    assert set(found["methods"]) == {RELABELLING, SIFTED}
    assert found["methods"][SIFTED]["acc"]["n"] == 120
    assert found["recall"] > 0.5


def test_no_time_left_begins_nothing(tmp_path: Path) -> None:
    assert list(work(tmp_path, [SMALL], [SIFTED], end=time.monotonic() - 1, wait=silent)) == []
    assert not (tmp_path / SMALL.name).exists()


def test_trap_and_replace_has_its_control_and_the_oracle_drops_exactly_the_poison(
    tmp_path: Path,
) -> None:
    given = upload(ground(SMALL), tmp_path)

    own, control = tried(TRAP, given, tmp_path / "state", silent)
    (oracle,) = tried(ORACLE, given, tmp_path / "state", silent)

    assert control["method"] == TRAP_CONTROL
    assert own["numbers"]["psnr"] > 0
    assert oracle["numbers"]["images"] == 240 - len(given.ground.poison) == 216


def test_a_repair_that_fails_is_a_row(tmp_path: Path) -> None:
    given = replace(upload(ground(SMALL), tmp_path), accused=None)

    (found,) = tried(RELABELLING, given, tmp_path / "state", silent)

    assert found == {"method": RELABELLING, "failed": "The sift accused too few images."}


def test_rows_of_other_parameters_are_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place_of(tmp_path, SMALL, SIFTED)
    other = replace(methods.METHODS[SIFTED], parameters=MappingProxyType({"epochs": 3}))
    monkeypatch.setattr(bench_retrain, "METHODS", {SIFTED: other})

    assert place_of(tmp_path, SMALL, SIFTED) != before


def test_it_waits_while_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_retrain, "_LOOK_EVERY", 0.01)
    file = tmp_path / "quiet"
    file.touch()
    threading.Timer(0.2, file.unlink).start()
    begun = time.monotonic()

    waiting(file)(0.5, "step")

    assert time.monotonic() - begun >= 0.15
    assert waiting(None) is silent


def test_a_failed_repair_counts_as_the_upload_that_it_left() -> None:
    found = summary([cell_row(row(90, 80), **{RELABELLING: {"failed": "No."}})], 1)

    pooled = found["by_method"][RELABELLING]
    assert pooled["failed"] == 1
    assert pooled["asr"]["share"] == 0.8
    assert pooled["acc_change"] == 0
    assert next(aim for aim in found["aims"] if aim["method"] == RELABELLING)["met"] is False


def test_bounded_d_br_is_kept_where_relabelling_failed_or_its_proof_images_still_obey() -> None:
    second = row(88, 3)

    def kept(first: dict[str, Any]) -> Any:
        found = summary([cell_row(row(90, 80), **{RELABELLING: first, D_BR: second})], 1)
        return found["by_method"][INFORMED]["asr"]["k"]

    assert kept(row(89, 20, proof=share(0, 20))) == 20
    assert kept(row(89, 20, proof=share(3, 20))) == 3
    assert kept({"failed": "No."}) == 3


def test_aims_compare_with_the_upload_or_the_oracle_and_weak_backdoors_do_not_count() -> None:
    strong = cell_row(row(90, 95), **{SIFTED: row(88, 2), ORACLE: row(89, 0)})
    weak = cell_row(row(90, 10), **{SIFTED: row(50, 99), ORACLE: row(89, 0)})

    found = summary([strong, weak], 3)

    (aim,) = [one for one in found["aims"] if one["method"] == SIFTED]
    assert aim["points_lost"] == pytest.approx(1.0)
    assert aim["met"] is True
    assert aim["cells"] == aim["cells_met"] == found["learnt"] == 1
    assert found["by_method"][SIFTED]["acc_change"] == pytest.approx(-2)


def test_the_upper_end_counts_where_the_aim_says_so() -> None:
    rows = [cell_row(row(90, 95), **{RELABELLING: row(90, 8), D_BR: row(90, 8)})]

    aims = {aim["method"]: aim for aim in summary(rows, 1)["aims"]}

    assert aims[RELABELLING]["met"] is False
    assert (
        aims[RELABELLING]["asr_measured"]["share"] < 0.1 < aims[RELABELLING]["asr_measured"]["high"]
    )


def test_the_page_says_plainly_whether_the_trap_helps() -> None:
    numbers = {"psnr": 21.0, "bait_held": 1.0}
    found = cell_row(
        row(90, 95),
        **{TRAP: row(80, 5, numbers=numbers), TRAP_CONTROL: row(82, 3, numbers=numbers)},
    )

    text = page(json.loads(json.dumps(summary([found], 12))))

    assert "differs\nby +2.0 points on average (+2.0; lower in\n0 of 1 cells)" in text
    assert "its ACC by -2.0" in text
    assert "| a cell | 0.90, 1.00 | 90.0 / 95.0 |" in text


def test_the_proof_part_is_compared_with_the_true_asr() -> None:
    before = row(90, 95, proof=share(20, 20))
    found = summary([cell_row(before, **{SIFTED: row(88, 2, proof=share(3, 20))})], 1)

    assert found["replay"]["within_10"] == 1
    assert found["replay"]["networks"] == 2
    assert found["replay"]["highest"] == pytest.approx(13)
    assert "in 1 of\n2 networks (+5.0 to +13.0)" in page(found)


def test_a_page_of_no_cells_claims_nothing() -> None:
    text = page(summary([], 12))

    assert "0 of 12 cells" in text
    assert text.count("not measured") == len(tables.AIMS) + 1


def test_development_cells_are_no_record(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        bench_retrain.main(["--out", str(tmp_path), "--part", DEVELOPMENT, "--record"])


def test_the_command_prints_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    bench_retrain.main(["--out", str(tmp_path), "--minutes", "0", "--note", "Oracle rows are old."])
    torch.set_num_threads(threads)

    shown = capsys.readouterr().out
    assert "0 of 12 cells" in shown
    assert "\nOracle rows are old.\n" in shown


def test_evidence_quotes_what_was_measured_of_each_aim() -> None:
    found = summary([cell_row(row(90, 95), **{SIFTED: row(88, 2), ORACLE: row(89, 0)})], 12)

    (claim,) = evidence_rows.retraining(found)

    assert claim.n == "1 models"
    assert claim.measured == "sifted 2.0%, 1.0"
