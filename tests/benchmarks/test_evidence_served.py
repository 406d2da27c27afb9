"""Served risk leads the evidence: what its records claim, with both of its sides."""

from typing import Any

from benchmarks import bench_sift_zoo, evidence_rows, evidence_served, graph_exam_tables
from benchmarks.served import numbers
from tests.benchmarks import test_bench_sift_zoo as sets
from tests.benchmarks import test_graph_exam as graphs


def test_served_risk_comes_first_and_each_kind_of_record_is_known() -> None:
    risk = {"policies": numbers.by_policy([]), "zoo": "served", "rules": {}}
    named = bench_sift_zoo.summary([sets.row("held", "nothing")]) | {"policy": "default"}
    exam = graph_exam_tables.summary([graphs.row("x", 0.1)], 26)

    for result, wanted in (
        (risk, evidence_served.served),
        (named, evidence_served.named_sets),
        (exam, evidence_served.graphs),
    ):
        known = [make for _, keys, make in evidence_rows.KINDS if keys <= set(result)]
        assert known == [wanted]
    assert evidence_rows.KINDS[0][0] == "Served risk"


def test_the_claim_of_a_policy_has_its_risk_and_its_price() -> None:
    rows: list[dict[str, Any]] = [
        {
            "policy": "default",
            "model": name,
            "backdoored": bad,
            "verdict": "cleared",
            "outcome": "as uploaded",
            "target": 1,
            "accused": None,
            "before": {"asr": asr},
            "after": {"asr": asr},
            "asr_upper": None,
            "loss": 0.004,
            "candidates": [],
            "attack": "patch",
            "architecture": "resnet",
            "data": "mnist",
            "scan_seconds": 1.0,
            "seconds": 1.0,
            "cpu_seconds": 1.0,
        }
        for name, bad, asr in (("a", True, 0.9), ("b", True, 0.3), ("c", False, None))
    ]

    ((claim, count, measured),) = evidence_served.served({"policies": numbers.by_policy(rows)})

    assert "`default`" in claim
    assert count == "1; 1"
    assert measured.startswith("1/1 = 100.0%")
    assert measured.endswith("0.4 points")


def test_named_sets_are_compared_with_the_policy_alone() -> None:
    rows = [sets.row("cleared", "poisoned"), sets.row("held", "nothing")]
    result = bench_sift_zoo.summary(rows) | {"policy": "default"}

    ((_, _, measured),) = evidence_served.named_sets(result)

    assert measured.startswith("1/2 = 50.0%")
    assert "; 2/2 = 100.0%" in measured
