"""The measure of served risk: known answers, nothing left out, and a run that goes on."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_served, record, zoo
from benchmarks.data import Dataset
from benchmarks.served import natural, numbers, pipeline, report
from benchmarks.served.pipeline import AS_UPLOADED, HELD, REFUSED, REPAIRED, Task
from guard.core.errors import MethodFailed
from guard.policy import Policy, load_policy
from guard.policy.rules import DetectorRule
from tests.cli import models

CHEAP = replace(load_policy(), name="cheap", detectors={"weight_statistics": DetectorRule()})


def a_row(
    name: str, outcome: str, asr: float | None = 1.0, after: float | None = None, **more: Any
) -> dict[str, Any]:
    served = outcome in (AS_UPLOADED, REPAIRED)
    kept = asr if outcome == AS_UPLOADED else after
    return {
        "model": name,
        "policy": "p",
        "attack": name.partition("-")[0],
        "architecture": "resnet",
        "data": "mnist",
        "target": 3,
        "backdoored": asr is not None,
        "accused": None,
        "asr_upper": None,
        "verdict": {AS_UPLOADED: "cleared", HELD: "held"}.get(outcome, "rejected"),
        "outcome": outcome,
        "before": {"asr": asr, "acc": 0.9},
        "after": {"asr": kept, "acc": 0.9 - more.get("loss", 0.0)} if served else None,
        "loss": 0.0,
        "candidates": [],
        "scan_seconds": 10.0,
        "seconds": 12.0,
        "cpu_seconds": 11.0,
        **more,
    }


ROWS = [
    a_row("patch-1", AS_UPLOADED, natural=0.01),
    a_row(
        "patch-2",
        REPAIRED,
        after=0.02,
        accused=3,
        asr_upper=1.0,
        candidates=[
            {"verdict": "rejected", "asr": 0.01},
            {"verdict": "rejected", "asr": 0.6},
            {"verdict": "rejected", "failed": "nothing found"},
            {"verdict": "purified", "asr": 0.02},
        ],
    ),
    a_row(
        "blend-1",
        REPAIRED,
        after=0.3,
        natural=0.25,
        accused=4,
        asr_upper=0.8,
        candidates=[{"verdict": "purified", "asr": 0.3}],
    ),
    a_row("blend-2", HELD),
    a_row("blend-3", REFUSED, candidates=[{"verdict": "rejected", "asr": 0.03}]),
    a_row("blend-4", AS_UPLOADED, asr=0.3),
    a_row("none-1", AS_UPLOADED, asr=None),
    a_row("none-2", HELD, asr=None),
    a_row("none-3", REPAIRED, asr=None, loss=0.03),
    {"model": "sig-1", "policy": "p", "backdoored": True, "failed": "x", "why": "It broke."},
]


def test_what_is_served_of_a_working_backdoor_is_counted_and_a_weak_one_is_not() -> None:
    (one,) = numbers.by_policy(ROWS)
    bad = one["backdoored"]

    assert one["models"] == {"honest": 3, "working": 5, "weak": 1}
    assert {key: (bad[key]["k"], bad[key]["n"]) for key in bad} == {
        "risk": (2, 5),
        "beyond_nature": (1, 5),
        "caught": (4, 5),
        "rejected": (3, 5),
        "right_class": (1, 5),
        "held": (1, 5),
        "never_served": (2, 5),
        "repaired": (2, 5),
        "as_uploaded": (1, 5),
    }
    assert (one["natural"]["k"], one["natural"]["n"]) == (1, 2)
    assert 0 < bad["risk"]["low"] < 0.4 < bad["risk"]["high"] < 1
    assert one["failed"] == {"sig-1": "It broke."}
    assert [(item["name"], item["risk"]["k"]) for item in one["attacks"]] == [
        ("blend", 1),
        ("patch", 1),
    ]


def test_honest_models_pay_in_accuracy_and_in_being_held() -> None:
    honest = numbers.summary("p", ROWS)["honest"]

    assert (honest["held"]["k"], honest["rejected"]["k"], honest["held"]["n"]) == (1, 1, 3)
    assert honest["loss"] == {"n": 2, "mean": pytest.approx(0.015), "most": 0.03}
    assert honest["over_a_point"]["k"] == 1


def test_the_proof_is_judged_as_a_test_by_the_true_asr_of_candidates() -> None:
    found = numbers.summary("p", ROWS)["repairs"]

    assert {key: (found[key]["k"], found[key]["n"]) for key in found} == {
        "served": (1, 3),
        "good_refused": (2, 3),
        "bad_passed": (1, 2),
    }


def test_a_bound_covers_where_the_true_asr_is_under_it() -> None:
    bound = numbers.summary("p", ROWS)["asr_bound"]

    assert (bound["covered"]["k"], bound["covered"]["n"], bound["median"]) == (1, 2, 0.9)


def test_the_page_has_a_line_for_each_policy_and_names_what_failed() -> None:
    rows = [*ROWS, *({**row, "policy": "q"} for row in ROWS)]
    page = report.page({"policies": numbers.by_policy(rows), "note": "A try."})

    assert page.startswith("A try.")
    assert "| p | 2/5 = 40.0% (11.8% to 76.9%) | 1/5 = 20.0% (3.6% to 62.4%) | 1/5" in page
    assert page.count("| blend | 1/3 = 33.3% (6.1% to 79.2%) | 0/3 |") == 2
    assert "not measured: sig-1: It broke." in page


def test_a_policy_that_saw_no_model_of_a_kind_has_dashes_and_no_rates() -> None:
    page = report.page({"policies": numbers.by_policy(ROWS[-1:])})

    assert f"| p |{' no models |' * 6} – | – |" in page


def test_without_an_honest_twin_nothing_is_put_down_to_nature() -> None:
    risky = a_row("lira-1", AS_UPLOADED)
    natural_too = [a_row("lira-2", REPAIRED, after=after, natural=0.9) for after in (0.95, 0.05)]

    assert [numbers.beyond_nature(row) for row in (risky, *natural_too)] == [True, False, False]


@pytest.fixture
def small_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An honest and a backdoored model with their truth and a clean set."""
    (tmp_path / "cleansets").mkdir()
    models.clean_set(tmp_path / "cleansets" / "stripes.npz")
    recipe = {"attack": "patch", "parameters": {"target": models.TARGET, "size": 3, "offset": 0}}
    recipe["parameters"] |= {"corner": "bottom-right", "pattern": "white", "seed": 1}
    for name, backdoored in (("good", False), ("bad", True)):
        models.saved(tmp_path / name, backdoored=backdoored)
        truth = {"name": name, "data": "stripes", "backdoored": backdoored, "architecture": "r"}
        truth |= {"seed": 1}
        truth |= {"attack": "patch", "target": models.TARGET} if backdoored else {}
        truth |= {"recipe": recipe if backdoored else None}
        (tmp_path / name / "truth.json").write_text(json.dumps(truth))
    seen = models.unseen(240)
    monkeypatch.setattr(
        pipeline, "images_of", lambda *_: Dataset("stripes", 6, ("",) * 6, seen, seen, seen)
    )
    return tmp_path


def options(**changes: Any) -> Namespace:
    return Namespace(
        **{"seed": 0, "data_dir": None, "device": None, "minutes": 9.0, "jobs": 1, **changes}
    )


def test_what_passes_is_served_as_it_is_and_measured_with_the_attackers_trigger(
    small_zoo: Path,
) -> None:
    bad, good = bench_served.run(zoo.load(small_zoo), [CHEAP], options())

    assert (bad["outcome"], good["outcome"]) == (AS_UPLOADED, AS_UPLOADED)
    assert bad["after"] == bad["before"]
    assert bad["before"]["asr"] > 0.9
    assert (good["after"]["asr"], good["loss"]) == (None, 0.0)
    assert numbers.summary("cheap", [bad, good])["backdoored"]["risk"]["k"] == 1


def test_a_trigger_is_tried_on_the_honest_twin_of_its_model(
    small_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = models.unseen(240)
    monkeypatch.setattr(
        natural, "images_of", lambda *_: Dataset("stripes", 6, ("",) * 6, seen, seen, seen)
    )
    rows = [{"model": "bad"}, {"model": "good"}]
    both = zoo.load(small_zoo)

    bad, good = natural.with_natural(rows, both, None)

    assert bad["natural"] < 0.5
    assert good["natural"] is None
    assert next(natural.with_natural(rows[:1], both[:1], None))["natural"] is None


def test_a_run_goes_on_from_what_is_done_and_begins_nothing_once_its_time_is_over(
    small_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_models = zoo.load(small_zoo)
    (first,) = bench_served.run(all_models[:1], [CHEAP], options())

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(pipeline, "images_of", never)

    assert bench_served.run(all_models, [CHEAP], options(minutes=-1.0)) == [first]
    assert pipeline.done(Task(folder=all_models[0].folder, policy=CHEAP, seed=1)) is None


def test_the_order_is_random_and_the_same_each_time(tmp_path: Path) -> None:
    names = [f"model-{index}" for index in range(20)]
    tasks = [Task(folder=tmp_path / name, policy=CHEAP) for name in names]
    order = [task.folder.name for task in pipeline.in_random_order(tasks)]

    assert sorted(order) == sorted(names)
    assert order != names
    assert order == [task.folder.name for task in pipeline.in_random_order(tasks[::-1])]


def test_what_is_rejected_is_repaired_vetted_and_measured_again(small_zoo: Path) -> None:
    (row,) = bench_served.run(zoo.load(small_zoo)[:1], [load_policy(models.QUICK)], options())

    assert (row["model"], row["verdict"], row["accused"]) == ("bad", "rejected", models.TARGET)
    assert row["outcome"] == REPAIRED
    assert row["after"]["asr"] < 0.1 < row["before"]["asr"]
    last = row["candidates"][-1]
    assert (last["verdict"], last["asr"]) == ("purified", row["after"]["asr"])
    assert last["defense"] == "shared_distillation"
    assert last["proof"]


@pytest.mark.parametrize("error", [MethodFailed("It broke.", code="x"), ValueError("It broke.")])
def test_a_model_that_breaks_the_run_is_named_and_the_others_go_on(
    small_zoo: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(pipeline, "images_of", fail)
    rows = bench_served.run(zoo.load(small_zoo), [CHEAP], options())

    assert ["It broke." in row["why"] for row in rows] == [True, True]
    assert set(numbers.summary("cheap", rows)["failed"]) == {"bad", "good"}


def test_policies_of_an_earlier_record_stand_beside_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    old, new = ([{**row, "policy": name} for row in ROWS] for name in ("p", "q"))
    first, second = (
        bench_served.evaluate(rows, [Policy(name=name, detectors=CHEAP.detectors)])
        | {"zoo": "zoo", "note": ""}
        for name, rows in (("p", old), ("q", new))
    )
    for summary in first["policies"][0]["attacks"], [first["policies"][0]["backdoored"]]:
        for one in summary:
            del one["beyond_nature"]  # as in a record that did not measure it
    earlier = bench_served.write("earlier", first, old)

    both = bench_served.beside(second, earlier)
    page = report.page(both)

    assert [one["policy"] for one in both["policies"]] == ["p", "q"]
    assert set(both["rules"]) == {"p", "q"}
    assert "| p | 2/5 = 40.0% (11.8% to 76.9%) | – |" in page
    assert f"taken from {earlier.name}" in page.partition("|")[0]
    assert bench_served.beside(first, earlier)["policies"] == first["policies"]
    with pytest.raises(SystemExit, match="is of the zoo zoo, not of another"):
        bench_served.beside(second | {"zoo": "another"}, earlier)


def test_a_record_is_written_without_its_rows_in_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    policy = Policy(name="p", detectors=CHEAP.detectors)
    folder = bench_served.write("served", bench_served.evaluate(ROWS, [policy]), ROWS)

    assert {path.name for path in folder.iterdir()} == {"summary.json", "README.md", "rows.json"}
    assert "| p | 2/5" in (folder / "README.md").read_text()
