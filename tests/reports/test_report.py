"""The agreed JSON document: its keys, its finite numbers, its exit code."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from guard.core.evidence import AsrEstimate
from guard.core.states import Verdict
from guard.reports.report import outcome_text
from tests.reports.samples import AGREED, GAPS, bare, purified, rejected, with_facts


def test_every_agreed_key_is_there_for_every_verdict() -> None:
    for verdict in Verdict:
        document = bare(verdict).to_dict()

        assert set(document) >= AGREED
        assert document["asr"] is None  # a machine that reads `asr.high` must not find a number


def test_a_document_is_json_and_says_what_was_found() -> None:
    document = json.loads(json.dumps(rejected().to_dict(), allow_nan=False))

    assert document["verdict"] == "rejected"
    assert document["target"] == 3
    assert document["asr"]["estimate"] == pytest.approx(524 / 540)
    assert document["methods"][0] == {
        "name": "patch_inversion",
        "version": 1,
        "seconds": 38.2,
        "outcome": "findings",
    }
    assert document["coverage"] == ["patch"]
    assert "blend" in document["not_covered"]
    assert "patch" not in document["not_covered"]
    assert document["known_gaps"] == GAPS
    assert bare(Verdict.UNVETTABLE).to_dict()["known_gaps"] is None


def test_a_purified_document_adds_accuracies_as_plain_numbers() -> None:
    document = purified().to_dict()

    assert (document["defense"], document["acc_before"], document["acc_after"]) == (
        "sau",
        0.896,
        0.883,
    )
    assert document["parent"] == "a" * 64
    assert (document["defense_version"], document["parameters"]) == (
        1,
        {"rho": 0.2, "norm": "linf"},
    )
    assert document["resampled"][0]["before"]["successes"] == 513
    assert document["relearned"][0]["lead"] == pytest.approx(0.59)
    assert document["relearned"][0]["leads"] == [0.31, 0.87]
    assert document["woken"][0]["lead"] == pytest.approx(
        (81 - 54) / document["woken"][0]["alone"]["trials"]
    )
    assert document["shared"] == {"radius": 0.2, "images": 100, "before": 0.97, "after": 0.31}
    assert document["unproved"][0].startswith("The trigger for class 5")
    assert document["replayed"][0]["target"] == document["replayed_before"][0]["target"] == 3
    assert len(document["acc_after_per_class"]) == 10


def test_a_scan_says_nothing_of_a_purification() -> None:
    assert not {"defense", "acc_before", "parent"} & set(bare(Verdict.CLEARED).to_dict())


def test_the_overall_bound_and_the_calibration_are_in_the_document() -> None:
    document = with_facts(rejected(), asr_upper=0.993, calibration="c" * 64).to_dict()

    assert (document["asr_upper"], document["calibration"]) == (0.993, "c" * 64)
    assert (rejected().to_dict()["asr_upper"], rejected().to_dict()["calibration"]) == (None, None)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_counts_as_suspicious(score: float) -> None:
    assert with_facts(rejected(), score=score).to_dict()["score"] == 1.0


@pytest.mark.parametrize(("score", "shown"), [(-0.2, 0.0), (1.7, 1.0), (0.25, 0.25)])
def test_a_score_stays_within_its_range(score: float, shown: float) -> None:
    assert with_facts(rejected(), score=score).to_dict()["score"] == shown


def test_other_numbers_that_are_not_finite_become_null() -> None:
    broken = AsrEstimate(
        target=1, family="patch", successes=0, trials=0, estimate=math.nan, low=0.0, high=math.inf
    )

    document = replace(with_facts(rejected(), asr=broken), seconds=math.nan).to_dict()

    assert document["asr"]["estimate"] is None
    assert document["asr"]["high"] is None
    assert document["seconds"] is None
    json.dumps(document, allow_nan=False)


def test_numbers_of_numpy_become_plain_ones() -> None:
    evidence = [
        {"numbers": {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64("nan"), "d": True}}
    ]
    document = json.loads(
        json.dumps(replace(rejected(), evidence=evidence).to_dict(), allow_nan=False)
    )

    assert document["evidence"] == [{"numbers": {"a": 0.5, "b": 3, "c": None, "d": True}}]


def test_accuracy_is_the_artifacts_own() -> None:
    assert rejected().to_dict()["accuracy"] == 0.896
    assert purified().to_dict()["accuracy"] == 0.883
    assert bare(Verdict.CLEARED).to_dict()["accuracy"] is None


def test_outcomes_are_told_in_words() -> None:
    found = [outcome_text(item) for item in rejected().evidence]

    assert found == ["suspicious", "could not look", "measured"]
    assert [outcome_text(item) for item in purified().evidence] == ["nothing suspicious"]


@pytest.mark.row(57)
def test_only_cleared_and_purified_exit_with_zero() -> None:
    assert {verdict: bare(verdict).exit_code for verdict in Verdict} == {
        Verdict.CLEARED: 0,
        Verdict.PURIFIED: 0,
        Verdict.REJECTED: 1,
        Verdict.INCONCLUSIVE: 2,
        Verdict.UNVETTABLE: 3,
        Verdict.HELD: 5,
    }
