"""The evaluation of defenses: numbers with known answers, failures counted, nothing left out."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench_purify, make_evidence_doc, record
from benchmarks.purify import numbers, report, running
from benchmarks.purify.running import Task, compared, fraction_of
from benchmarks.zoo import ZooModel
from guard.defenses import DEFENSES
from guard.ml.cleanset import Labelled
from guard.policy import DefenseRule, DetectorRule, Policy, load_policy
from tests import toys


def a_row(
    model: str, defense: str, asr: float | None, *, loss: float = 0.01, **fields: Any
) -> dict[str, Any]:
    before: dict[str, Any] = {
        "acc": 0.9,
        "recall": [0.9, 0.9],
        "asr": None if asr is None else 1.0,
        "ra": None if asr is None else 0.0,
    }
    after = {
        "acc": 0.9 - loss,
        "recall": [0.9, 0.9 - 2 * loss],
        "asr": asr,
        "ra": None if asr is None else 0.9 - asr,
    }
    return {
        "model": model,
        "defense": defense,
        "fraction": 0.05,
        "seed": 0,
        "attack": model.partition("-")[0],
        "backdoored": asr is not None,
        "before": before,
        "after": after,
        "seconds": 2.0,
        "peak_mib": 10,
        **compared(before, after),
        **fields,
    }


ROWS = [
    a_row("patch-1", "a", 0.0),
    a_row("patch-2", "a", 0.1),
    a_row("wanet-1", "a", 0.5),
    a_row("none-1", "a", None),
    a_row("patch-1", "fine_tune", 0.2),
    a_row("patch-2", "fine_tune", 0.3),
    a_row("wanet-1", "fine_tune", 0.7),
    {
        "model": "sig-1",
        "defense": "a",
        "fraction": 0.05,
        "seed": 0,
        "attack": "sig",
        "backdoored": True,
        "failed": "nothing_found",
    },
]


def test_der_counts_only_a_loss_of_accuracy_and_a_fall_of_asr() -> None:
    before = {"acc": 0.9, "recall": [0.8, 1.0], "asr": 0.6}

    assert compared(before, {"acc": 0.8, "recall": [0.7, 0.9], "asr": 0.1})["der"] == pytest.approx(
        (0.5 - 0.1 + 1) / 2
    )
    assert compared(before, {"acc": 0.95, "recall": [0.9, 1.0], "asr": 0.9})["der"] == 0.5
    assert compared(before, {"acc": 0.9, "recall": [0.9, 0.7], "asr": 0.0})[
        "worst_class_loss"
    ] == pytest.approx(0.3)


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


def test_the_page_names_every_attack() -> None:
    page = report.page(bench_purify.evaluate(ROWS))

    assert "| defense | clean | patch | sig | wanet |" in page
    assert "| a | 5% | 5.0% (2/2) | – (0/1) | 50.0% (1/1) |" in page
    assert "nothing_found 1" in page


def test_a_fraction_keeps_classes_and_parts_and_leaves_the_hold_out_alone() -> None:
    whole = toys.curated()
    count = (len(whole.search) + len(whole.calibration)) // 2
    some, again = fraction_of(whole, count, 3), fraction_of(whole, count, 3)

    assert abs(len(some.search) + len(some.calibration) - count) <= toys.CLASSES
    assert (
        set(some.search.labels.tolist())
        == set(range(toys.CLASSES))
        == set(some.calibration.labels.tolist())
    )
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
    rows = [
        *ROWS,
        a_row("patch-1", "tournament", 0.0, loss=0.03),
        a_row("patch-2", "tournament", 0.0, loss=0.03),
    ]

    lines = {line["defense"]: line for line in numbers.beside(rows, "tournament")}

    assert set(lines) == {"a", "fine_tune"}
    assert lines["a"]["models"] == 2
    assert lines["a"]["asr"]["mean"] == pytest.approx(-0.05)
    assert lines["a"]["loss"]["mean"] == pytest.approx(0.02)
    assert lines["a"]["der"]["mean"] == pytest.approx((0.05 - 0.02) / 2)


def test_only_what_a_record_rejected_is_repaired(tmp_path: Path) -> None:
    rows = [
        {"name": "one", "backdoored": True, "rules": {"verdict": "rejected"}},
        {"name": "two", "backdoored": True, "rules": {"verdict": "held"}},
        {"name": "three", "backdoored": False, "rules": {"verdict": "rejected"}},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    models = [
        ZooModel(
            tmp_path / row["name"],
            {"name": row["name"], "works": True, "backdoored": row["backdoored"]},
        )
        for row in rows
    ]

    def options(**changes: Any) -> Namespace:
        return Namespace(
            **{"only": "", "detected": None, "sample": None, "honest": None, **changes}
        )

    assert [one.name for one in bench_purify.chosen(models, options(detected=tmp_path))] == ["one"]
    assert len(bench_purify.chosen(models, options(sample=2))) == 2
    assert bench_purify.chosen(models, options(sample=2)) == bench_purify.chosen(
        models, options(sample=2)
    )


def test_honest_models_are_drawn_beside_what_a_record_rejected(tmp_path: Path) -> None:
    bad, good = [f"bad-{index}" for index in range(6)], [f"a-good-{index}" for index in range(9)]
    rows = [
        {"name": name, "backdoored": True, "rules": {"verdict": "rejected"}} for name in bad[:4]
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    models = [
        ZooModel(tmp_path / name, {"name": name, "works": name in bad, "backdoored": name in bad})
        for name in [*bad, *good]
    ]

    def names(**changes: Any) -> list[str]:
        options = Namespace(
            **{"only": "", "detected": tmp_path, "sample": None, "honest": 3, **changes}
        )
        return [model.name for model in bench_purify.chosen(models, options)]

    drawn = names()
    assert drawn == names() == sorted(drawn)
    assert (drawn[3:], len(set(drawn[:3]) & set(good))) == (bad[:4], 3)
    assert drawn[:3] != good[:3]  # by chance, not by name
    assert [name for name in names(sample=2) if name in good] == drawn[:3]
    assert len(names(sample=2)) == 2 + 3
    assert len(names(detected=None)) == 6 + 3
    assert names(honest=0) == bad[:4]
    assert names(honest=99) == [*good, *bad[:4]]
    assert names(only="good") == drawn[:3]


def test_what_a_tournament_cleared_is_no_repair_and_its_time_is_that_of_all_candidates() -> None:
    candidates = [
        {"defense": "a", "failed": "x"},
        {"defense": "b", "seconds": 10.0, "verdict": "rejected"},
        {"defense": "b", "seconds": 20.0, "verdict": "purified"},
    ]
    rows = [
        a_row("patch-1", "tournament", 0.0, verdict="purified", winner="b", candidates=candidates),
        a_row("patch-2", "tournament", 1.0, verdict="cleared", winner=None, candidates=[]),
    ]

    (line,) = numbers.summary(rows)

    assert (line["backdoored"], line["repaired"], line["asr"]) == (2, 1, 0.0)
    assert line["verdicts"] == {"cleared": 1, "purified": 1}
    assert line["time_over_winner"] == 1.5
    assert line["der_all"]["mean"] == pytest.approx((line["der"]["mean"] + 0.5) / 2)


def test_a_chain_run_alone_takes_the_time_of_all_its_links() -> None:
    candidates = [
        {"defense": "a", "seconds": 10.0, "verdict": "rejected"},
        {"defense": "b", "seconds": 15.0},
        {"defense": "a", "after": ["a"], "seconds": 5.0, "verdict": "rejected"},
        {"defense": "b", "after": ["a", "a"], "seconds": 20.0, "verdict": "purified"},
    ]

    (line,) = numbers.summary(
        [a_row("patch-1", "tournament", 0.0, verdict="purified", winner="b", candidates=candidates)]
    )

    assert line["time_over_winner"] == (10 + 15 + 5 + 20) / (10 + 5 + 20)


def test_published_numbers_stand_beside_those_that_were_measured() -> None:
    page = report.page(bench_purify.evaluate(ROWS))

    assert "| fine_tune | 5% | 1.0, 40.0, 79.5 | -0.6, 38.8, 78.5 |" in page


def line_of(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(line for line in numbers.summary(rows) if line["defense"] == name)


def test_every_mean_has_its_interval_and_der_its_ceiling() -> None:
    rows = [
        *ROWS,
        {
            **a_row("sig-1", "fine_tune", 0.4),
            "before": {"acc": 0.9, "recall": [0.9, 0.9], "asr": 0.6, "ra": 0.2},
        },
    ]
    line = line_of("a", rows)

    assert (
        line["asr_interval"]["low"]
        <= line["asr"]
        == line["asr_interval"]["mean"]
        <= line["asr_interval"]["high"]
    )
    assert (line["ra_before"], line["ra_after"]) == (0.0, pytest.approx(0.7))
    assert line["ceiling"] == 1.0
    assert line["ceiling_all"] == pytest.approx(
        (3 + 0.8) / 4
    )  # `a` failed on sig, whose ASR another run says
    assert line_of("a", ROWS)["ceiling_all"] is None


def test_other_seeds_of_a_model_are_no_further_models() -> None:
    values, models = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], ["m", "m", "m", "n", "n", "n"]
    apart, together = numbers.interval(values), numbers.interval(values, models)

    assert together["mean"] == apart["mean"] == 0.5
    assert (together["low"], together["high"]) == (0.0, 1.0) != (apart["low"], apart["high"])
    assert numbers.interval([0.2, 0.4, 0.9]) == numbers.interval([0.2, 0.4, 0.9], ["x", "y", "z"])


def test_memory_is_a_multiple_of_the_baselines_on_the_same_runs() -> None:
    rows = [
        a_row("p-1", "a", 0.0, peak_mib=30),
        a_row("p-2", "a", 0.0, peak_mib=90),
        a_row("p-3", "a", 0.0),
        a_row("p-1", "fine_tune", 0.0, peak_mib=0),
        a_row("p-2", "fine_tune", 0.0, peak_mib=40),
    ]

    assert line_of("a", rows)["memory"] == {
        "of": "process",
        "mib": 90.0,
        "runs": 2,
        "over_baseline": 3.0,
    }
    assert line_of("a", rows[:3])["memory"]["over_baseline"] is None
    on_device = [row | {"peak_device_mib": row["peak_mib"] + 10} for row in rows]
    assert line_of("a", on_device)["memory"]["of"] == "device"
    assert "| 100 | 2.3 (2) |" in report.page(bench_purify.evaluate(on_device))


def test_honest_models_have_a_table_of_their_own_and_those_left_alone_are_counted() -> None:
    rows = [
        *ROWS,
        a_row("none-2", "a", None, loss=0.001),
        a_row(
            "none-1", "tournament", None, loss=0.0, verdict="cleared", winner=None, candidates=[]
        ),
    ]
    line, left = line_of("a", rows), line_of("tournament", rows)

    assert (line["honest"], line["honest_runs"], line["honest_over_aim"]) == (2, 2, 0)
    assert line["honest_interval"]["mean"] == pytest.approx(0.0055)
    given_up = a_row("none-3", "a", None) | {"failed": "nothing_found", "after": None}
    assert line_of("a", [*rows, given_up])["honest_all"]["mean"] == pytest.approx(0.011 / 3)
    assert "| 0.4% (0.0% to 1.0%) |" in report.page(bench_purify.evaluate([*rows, given_up]))
    assert (left["honest_runs"], "honest" in left) == (1, False)
    assert "| tournament | 5% | 0 | 0/1 | – | – | – | – | – | – |" in report.page(
        bench_purify.evaluate(rows)
    )


def test_a_failed_defense_leaves_what_the_model_did_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(row: dict[str, Any], *_: Any) -> None:
        row["before"] = {"asr": 0.7}
        raise ValueError("no")

    truth = dict.fromkeys(
        ("attack", "rate", "data", "architecture", "backdoored", "target", "name"), "x"
    )
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    monkeypatch.setattr(running, "_fill", fail)
    monkeypatch.setattr(running.Task, "key", "k")
    row = running._row(
        running.Task(folder=tmp_path, defense="a", fraction=0.1, seed=0, policy=load_policy())
    )

    assert (row["before"], row["failed"]) == ({"asr": 0.7}, "crashed")
    assert json.loads((tmp_path / "purify-a-0.1-0.json").read_text()) == row


def test_a_record_is_written_with_its_pictures_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    rows = [*ROWS, *({**row, "fraction": 0.1} for row in ROWS)]
    folder = bench_purify.write("purify-try", bench_purify.evaluate(rows) | {"note": "A try."})

    assert {path.name for path in folder.iterdir()} == {
        "summary.json",
        "rows.json",
        "README.md",
        "attacks.png",
        "losses.png",
    }
    assert "![losses](losses.png)" in (folder / "README.md").read_text()
    quoted = make_evidence_doc.page(tmp_path)
    assert "A try." in (folder / "README.md").read_text()
    assert f"records/{folder.name}/README.md" in quoted
    assert "| `a`, 5% clean: true ASR 100.0% before the repair; after it | 3 of 4 | 20.0%" in quoted


def test_an_older_record_is_told_with_dashes() -> None:
    known = {
        "defense",
        "fraction",
        "backdoored",
        "repaired",
        "failed",
        "asr_before",
        "asr",
        "worst_attack_asr",
        "acc_loss",
        "worst_class_loss",
        "der",
        "seconds",
        "peak_mib",
        "honest",
        "honest_loss",
        "honest_worst_loss",
    }
    result = bench_purify.evaluate(ROWS)
    old = {
        "summary": [{key: line[key] for key in line.keys() & known} for line in result["summary"]],
        "against": [
            {key: line[key] for key in line if key != "runs"} for line in result["against"]
        ],
        "attacks": [{key: line[key] for key in line if key != "n"} for line in result["attacks"]],
    }

    page = report.page(old)

    assert "| a | 5% | – | 3/4 | 100.0% | 20.0% | 50.0% | – | – | 1.0% | 2.0% |" in page
    assert "| a | 5% | – | 1 | 1.0% | – | 1.0% | – | – | – |" in page


def a_task(folder: Path, rho: float) -> Task:
    rules = (DefenseRule(name="fst"), DefenseRule(name="sau", params={"rho": rho}))
    policy = Policy(name="p", detectors={"margin": DetectorRule()}, defenses=rules)
    return Task(folder=folder, defense="policy-2", fraction=0.05, seed=0, policy=policy)


def test_a_policys_defense_is_the_one_that_it_names_with_its_parameters(tmp_path: Path) -> None:
    (method,) = a_task(tmp_path, 0.1).methods()

    assert isinstance(method, DEFENSES.get("sau"))
    assert method.parameters()["rho"] == 0.1


def test_a_policys_chained_defense_brings_all_its_links(tmp_path: Path) -> None:
    task = a_task(tmp_path, 0.1)
    longer = (
        *task.policy.defenses,
        DefenseRule(name="fst", after="sau"),
        DefenseRule(name="anp", after="fst"),
    )
    chained = replace(task, defense="policy-4", policy=replace(task.policy, defenses=longer))

    assert [type(method) for method in chained.methods()] == [
        DEFENSES.get(name) for name in ("sau", "fst", "anp")
    ]


def test_what_is_done_counts_only_while_everything_is_as_it_was(tmp_path: Path) -> None:
    task = a_task(tmp_path, 0.1)
    assert running.done(task) is None
    task.file.write_text(json.dumps({"key": task.key, "model": "one"}))

    assert running.done(task) == {"key": task.key, "model": "one"}
    assert running.done(a_task(tmp_path, 0.2)) is None
