"""The evaluation on synthetic scans.

Numbers with known answers, a record that is whole, nothing left out.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import attacks, bench_detect, make_evidence_doc, quote, record
from benchmarks.detect import numbers, report
from benchmarks.detect.rows import held_out, rows_of
from guard.core.evidence import Evidence, Outcome
from guard.detectors.patch_inversion import PatchInversion
from guard.policy import DetectorRule, Policy
from guard.vetting import population
from guard.vetting.examine import accuracy_evidence
from guard.vetting.population import Member, Scanned
from tests.policy.population import ACCURACY, CLEANSET, FACTS, finding

POLICY = Policy(name="one", detectors={"patch_inversion": DetectorRule()})
ATTACKS = ("patch", "blended", "wanet")


def scans(honest: int = 24, bad: int = 24, *, part: str = "exam", seed: int = 0) -> list[Scanned]:
    """One detector.

    Backdoored models have small p values but for a third of those attacked by wanet.
    """
    rng, found = random.Random(seed), []
    for number in range(honest + bad):
        backdoored, attack = number >= honest, ATTACKS[number % 3]
        seen = backdoored and (attack != "wanet" or number % 9 != 2)
        p = 10 ** -rng.uniform(2, 6) if seen else rng.random()
        hits = 260 if seen else 60
        digest = f"{seed:032x}{number:032x}"
        item = Evidence(
            artifact=digest,
            method="patch_inversion",
            version=PatchInversion.version,
            parameters=PatchInversion().parameters(),
            cleanset=CLEANSET,
            seed=0,
            outcome=Outcome.FINDINGS,
            families=("patch",),
            findings=(finding("patch", p, hits=hits, fold=4.0 if seen else 1.1),),
            seconds=2.0,
        )
        truth = {
            "name": f"{part}-{number:02}",
            "data": "tens",
            "backdoored": backdoored,
            "part": part,
            "hardness": None,
            "attack": attack if backdoored else None,
            "asr": 0.97 if backdoored else None,
            "acc": 0.95,
        }
        accuracy = accuracy_evidence(digest, CLEANSET, ACCURACY, 0)
        architecture = ("cifar_resnet", "preact_resnet18")[number // 2 % 2]
        found.append(
            Scanned(
                Member(Path(f"{part}-{number:02}"), truth), digest, architecture, (accuracy, item)
            )
        )
    return found


@pytest.fixture(autouse=True)
def one_clean_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "read_cleanset", lambda _path: SimpleNamespace(facts=FACTS))


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.5
    pairs = [(bad > good) + (bad == good) / 2 for bad in scores[labels] for good in scores[~labels]]

    assert numbers.auroc(scores.tolist(), labels.tolist()) == pytest.approx(np.mean(pairs))
    assert numbers.auroc([1.0, 2.0], [True, True]) is None


def test_the_bootstrap_interval_holds_the_value_and_is_repeated() -> None:
    scores, labels = [0.1, 0.4, 0.35, 0.8, 0.7, 0.2], [False, False, True, True, True, False]
    one, again = (numbers.auroc_with_interval(scores, labels) for _ in range(2))

    assert one == again
    assert one["low"] <= one["auroc"] <= one["high"]


def test_models_of_the_part_are_judged_by_a_calibration_of_the_others() -> None:
    result, rows, _ = bench_detect.evaluate(
        scans(), scans(part="reference", seed=1), POLICY, zoo=Path()
    )

    assert "24 other" not in result["scores_from"]
    assert "48 other models" in result["scores_from"]
    assert {row["part"] for row in rows} == {"exam"}
    assert result["who"] == "calibrated"
    assert all(row["calibrated"]["applied"] for row in rows)
    assert result["operating_point"]["separate_references"]
    assert result["operating_point"]["false_alarms"]["n"] == 24


def test_every_model_and_every_attack_is_in_the_result() -> None:
    result, rows, _ = bench_detect.evaluate(scans(), [], POLICY, zoo=Path())

    assert len(rows) == 48
    assert sum(own["models"] for own in result["attacks"].values()) == 48
    assert set(result["attacks"]) == {*ATTACKS, "honest: plain"}
    missed = result["attacks"]["wanet"]["not_cleared"]
    assert missed["k"] < missed["n"] == 8
    assert "out of fold" in result["scores_from"]
    assert result["auroc"]["calibrated"]["auroc"] > 0.8
    assert result["detectors"]["patch_inversion"]["could_not_look"] == 0
    assert result["levels"]["combined"]["n"] == 24


def test_a_left_out_attack_or_architecture_is_never_fitted() -> None:
    every = scans()
    by_attack, by_architecture = held_out(every, "attack", 0), held_out(every, "architecture", 0)
    truth = {item.member.name: item.member.truth for item in every}

    assert set(by_attack) == set(ATTACKS)
    for attack, own in by_attack.items():
        assert {truth[name]["attack"] for name in own} == {attack, None}
    assert {"cifar_resnet", "preact_resnet"} == set(by_architecture)
    assert sum(map(len, by_architecture.values())) == 48


def test_attacks_that_the_zoo_lacks_are_named(tmp_path: Path) -> None:
    result, _, _ = bench_detect.evaluate(scans(4, 4), [], POLICY, zoo=Path())
    result |= {"part": "", "failed": {}}
    folder = tmp_path / "2026-11-27-detect-default"
    folder.mkdir()
    (folder / "summary.json").write_text(
        json.dumps({"surroundings": {"commit": "c"}, "result": result})
    )

    lacking = sorted({*attacks.ATTACKS.names()} - {*ATTACKS})
    assert lacking == result["attacks_not_in_zoo"]
    assert f"not in this zoo, as far as it was judged: {', '.join(lacking)}." in report.page(result)
    told = " ".join(quote.missed(folder=tmp_path).split())
    assert f"**Not measured**: {', '.join(lacking)}. - Policy `ensemble`" in told
    assert "as far as it was judged: none." in report.page({**result, "attacks_not_in_zoo": []})


def test_a_record_that_does_not_say_what_its_zoo_lacks_is_quoted_without_it() -> None:
    result, _, _ = bench_detect.evaluate(scans(4, 4), [], POLICY, zoo=Path())
    del result["attacks_not_in_zoo"]

    assert "not in this zoo" not in report.page({**result, "part": "", "failed": {}})


@pytest.mark.parametrize("built_here", [True, False])
def test_the_record_holds_the_zoos_account_of_the_examined_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_here: bool
) -> None:
    found, zoo = scans(4, 4), tmp_path / "zoo"
    names = [item.member.name for item in found]
    document = {
        "name": "small",
        "spec": {"asr": 0.5},
        "models": [{"name": name} for name in (*names, "left-out")],
    }
    zoo.mkdir()
    if built_here:
        (zoo / "zoo.json").write_text(json.dumps(document))
    monkeypatch.setattr("sys.argv", ["bench_detect", "--zoo", str(zoo), "--name", "try"])
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(population, "members", lambda _zoo: [item.member for item in found])
    monkeypatch.setattr(bench_detect, "scan_zoo", lambda *_, **__: (found, {}))
    monkeypatch.setattr("benchmarks.detect.plots.draw", lambda *_: [])

    bench_detect.main()

    (folder,) = (tmp_path / "records").iterdir()
    assert built_here == (folder / "zoo.json").exists()
    if built_here:
        assert {**document, "models": [{"name": name} for name in names]} == json.loads(
            (folder / "zoo.json").read_text()
        )


def said_of(ps: dict[str, float]) -> dict[str, Any]:
    """What a row says of a detector of several families that gave these p values.

    And none for blends.
    """
    quiet = replace(finding("blend", 0.5), numbers={})
    item = Evidence(
        artifact="d" * 64,
        method="several",
        version=1,
        parameters={},
        cleanset=CLEANSET,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=(*ps, "blend"),
        findings=(*(finding(family, p) for family, p in ps.items()), quiet),
    )
    model = Scanned(
        Member(Path("m"), {"data": "tens", "backdoored": False}), "d" * 64, "cifar_resnet", (item,)
    )
    (row,) = rows_of([model], POLICY, {"tens": FACTS}, None, 0.05)
    return dict(row["detectors"]["several"])


def test_a_detectors_p_is_corrected_for_the_families_it_gave_one_for() -> None:
    assert said_of({})["p"] is None
    assert said_of({"patch": 0.03})["p"] == pytest.approx(0.03)
    assert said_of({"warp": 0.5, "filter": 0.03, "additive": 0.9})["p"] == pytest.approx(
        1 - 0.97**3
    )


def test_too_few_models_to_fit_still_give_the_rules() -> None:
    result, _, drawn = bench_detect.evaluate(scans(4, 4), [], POLICY, zoo=Path())

    assert result["who"] == "rules"
    assert "calibrated" not in result["auroc"]
    assert drawn["probabilities"] is None
    assert result["operating_point"] is None


def test_the_asr_bound_is_compared_with_the_truth() -> None:
    said: dict[str, Any] = {"verdict": "rejected", "asr": 0.9, "asr_low": 0.85, "asr_upper": 0.95}
    rows = [
        {"backdoored": True, "attack": attack, "asr": asr, "rules": said}
        for attack, asr in (("patch", 0.5), ("warp", 0.94), ("warp", 0.99))
    ]
    found = numbers.asr_bounds(rows, "rules")

    assert (found["covered"]["k"], found["covered"]["n"]) == (2, 3)
    assert {name: own["covered"]["k"] for name, own in found["attacks"].items()} == {
        "patch": 1,
        "warp": 1,
    }
    assert found["median_width"] == pytest.approx(0.1)


def test_a_record_is_written_whole_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    monkeypatch.setattr("benchmarks.detect.plots.DRAWS", 20)
    result, rows, drawn = bench_detect.evaluate(scans(12, 12), [], POLICY, zoo=Path())
    result |= {"part": "", "failed": {"odd": "It has no tensors."}, "device": "cpu"}
    folder = bench_detect.write("try", result, rows, drawn)
    readme, quoted = (folder / "README.md").read_text(), make_evidence_doc.page(tmp_path)

    assert {path.name for path in folder.iterdir()} == {
        "summary.json",
        "rows.json",
        "README.md",
        "attacks.png",
        "curves.png",
    }
    assert len(json.loads((folder / "rows.json").read_text())) == 24
    for word in (*ATTACKS, "odd: It has no tensors.", "patch_inversion"):
        assert word in readme
    assert "honest models held or rejected; rejected | 12 |" in quoted
    assert f"records/{folder.name}/README.md" in quoted
    for attack, item in quote.strong(result).items():
        assert f"| {attack} | {item['k']}/{item['n']} |" in quoted


def test_without_records_the_document_says_so(tmp_path: Path) -> None:
    assert "There is no record yet" in make_evidence_doc.page(tmp_path)


def test_the_evidence_page_quotes_the_newest_records() -> None:
    assert make_evidence_doc.DOCUMENT.read_text() == make_evidence_doc.page(), (
        "python -m benchmarks.make_evidence_doc"
    )
