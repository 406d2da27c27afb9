"""Rewritten forms keep the answers; cells are drawn, judged and counted as the record says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks import bench_rewrites, evidence_rows, zoo
from benchmarks.bench_rewrites import STEPS, cell, decided, plan
from benchmarks.rewrite_forms import (
    HEAD,
    HEAD_NORM,
    PLAIN,
    POLARIZER,
    POLARIZER_NORM,
    REWRITES,
    rewritten,
)
from benchmarks.rewrite_tables import page, summary
from guard.ml.networks import architectures
from guard.ml.search.mobility import mobility
from guard.policy import load_policy
from guard.policy.rules import DetectorRule
from guard.vetting import canary_trial, examine

BAD = "deep-patch.safetensors"
CHEAP = replace(load_policy(), detectors={"weight_statistics": DetectorRule()})
POLICIES = dict.fromkeys(bench_rewrites.POLICIES, CHEAP)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A zoo of the canary kit's backdoored and honest model."""
    curated = canary_trial.clean_set()
    for name, backdoored in ((BAD, True), (canary_trial.GOOD, False)):
        model = examine.open_model(canary_trial.KIT / name, device="cpu")
        place = tmp_path / name.removesuffix(".safetensors")
        place.mkdir()
        safetensors.torch.save_file(architectures.export(model), place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(model.manifest.to_dict()))
        truth = {"backdoored": backdoored, "data": "canary", "asr": 1.0 if backdoored else None}
        (place / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "cleansets").mkdir()
    shown = curated.visible().search
    np.savez(
        tmp_path / "cleansets" / "canary.npz",
        images=shown.images.numpy(),
        labels=shown.labels.numpy(),
    )
    return tmp_path


@pytest.mark.parametrize("how", REWRITES)
def test_a_form_keeps_every_answer_and_a_polarizer_leaves_no_slope(how: str) -> None:
    model = examine.open_model(canary_trial.KIT / BAD, device="cpu")
    clean = canary_trial.clean_set().visible()
    images = clean.search.floats()

    other = rewritten(model, how, images)

    with torch.no_grad():
        assert torch.equal(other(images).argmax(1), model(images).argmax(1))
    if how in {POLARIZER, POLARIZER_NORM}:
        assert mobility(other.requires_grad_(False), clean.search, 10).moving == 0


def test_each_backdoored_model_is_planned_in_all_forms_and_each_honest_one_in_one_of_each_pair(
    folder: Path,
) -> None:
    cells = [(model.name, how) for model, how in plan(zoo.load(folder))]

    assert {how for name, how in cells if name == "deep-patch"} == {PLAIN, *REWRITES}
    honest = [how for name, how in cells if name == "honest"]
    assert len(honest) == 3
    assert PLAIN in honest
    assert {HEAD, HEAD_NORM} & {*honest}
    assert {POLARIZER, POLARIZER_NORM} & {*honest}
    assert cells == [(model.name, how) for model, how in plan(zoo.load(folder))]


def test_cells_are_judged_by_every_policy_and_counted(folder: Path) -> None:
    bad, good = zoo.load(folder)
    curated = canary_trial.clean_set()

    rows = [
        cell(model, how, curated, POLICIES)
        for model, how in ((bad, HEAD_NORM), (good, PLAIN), (good, HEAD), (bad, POLARIZER))
    ]
    rows[1:1] = [cell(bad, PLAIN, curated, POLICIES)]
    rows = [decided(row, curated.facts, POLICIES) for row in rows]
    found = summary(rows, POLICIES, 8)

    assert all(set(row["steps"]["weight_statistics"]) <= set(STEPS) for row in rows)
    assert all(row["seconds"]["weight_statistics"] > 0 for row in rows)
    assert [row["refused"] for row in rows] == [False, False, False, False, True]
    assert found["rewrites_stopped"]["default"] == {"k": 2, "n": 2}
    assert found["honest_same_verdict"]["strict"] == {"k": 1, "n": 1}
    assert found["honest_repaired"]["strict"] == {"k": 0, "n": 1}
    assert found["refused_at_the_door"] == {"k": 1, "n": 1}
    assert found["cost_ratio"]["ensemble"]["rewritten"]["ratio"] >= 1
    assert "| deep-patch | " in page(found)
    assert "5 of 8 cells" in page(found)


def test_what_a_policy_repairs_in_any_case_is_counted_apart_from_what_it_clears() -> None:
    def row(how: str, repaired: bool) -> dict[str, Any]:
        return {
            "model": "m",
            "backdoored": False,
            "asr": None,
            "parameters": 1,
            "how": how,
            "refused": False,
            "verdicts": {"strict": {"verdict": "held", "repaired": repaired}},
            "seconds": {"margin": 1.0},
            "steps": {"margin": {}},
        }

    policies = {"strict": load_policy(Path("strict"))}
    alike = summary([row(PLAIN, True), row(HEAD, True)], policies, 2)
    other = summary([row(PLAIN, True), row(HEAD, False)], policies, 2)

    assert alike["honest_cleared_after"]["strict"] == {"k": 0, "n": 1}
    assert alike["honest_repaired"]["strict"] == {"k": 1, "n": 1}
    assert alike["honest_same_verdict"]["strict"] == {"k": 1, "n": 1}
    assert other["honest_same_verdict"]["strict"] == {"k": 0, "n": 1}


def test_a_page_of_no_cells_claims_nothing() -> None:
    found = summary([], POLICIES, 8)

    assert "0 of 8 cells" in page(found)
    assert "| 0/0 | 0/0 | 0/0 |" in page(found)
    assert "| – | – | – |" in page(found)
    (row,) = evidence_rows.rewrites(found)
    assert row.n == "0 of 8 planned"
    assert row.measured.endswith("–, –, –")


def test_an_interrupted_run_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_rewrites, "load_policy", lambda _path: CHEAP)

    bench_rewrites.main(["--zoo", str(folder)])
    first = {path: path.stat().st_mtime_ns for path in (folder / "rewrites").iterdir()}
    next(iter(first)).unlink()
    capsys.readouterr()
    bench_rewrites.main(["--zoo", str(folder)])

    again = {path: path.stat().st_mtime_ns for path in (folder / "rewrites").iterdir()}
    assert len(again) == len(first) == 8
    assert sum(again[path] != when for path, when in first.items()) == 1
    assert "8 of 8 cells" in capsys.readouterr().out
