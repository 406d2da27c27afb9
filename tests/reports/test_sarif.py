"""SARIF logs: valid by the official schema, stable, and never a pass where nobody looked."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from guard.core.states import Verdict
from guard.core.waivers import Waiver
from guard.reports.judged import Judged
from guard.reports.report import Report
from guard.reports.sarif import render_sarif, verdicts_sarif
from tests.reports.official import sarif_faults
from tests.reports.samples import TARGET, bare, purified, rejected, with_facts

HOSTILE = "<b>\x1b[31m\u202e\x00evil/../name %00"


def run_of(report: Report, **options: Any) -> dict[str, Any]:
    log = render_sarif(report, **options)
    assert sarif_faults(log) == []
    (run,) = log["runs"]
    return dict(run)


def by_rule(run: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    return [one for one in run["results"] if one["ruleId"] == rule]


def test_the_official_schema_finds_a_fault_in_a_wrong_log() -> None:
    log = render_sarif(rejected())
    log["runs"][0]["results"][0]["level"] = "fatal"

    assert sarif_faults(log)


@pytest.mark.row(49)
@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_valid_and_only_a_pass_is_one(verdict: Verdict) -> None:
    run = run_of(bare(verdict))
    (result,) = by_rule(run, f"verdict/{verdict}")
    passes = verdict in {Verdict.CLEARED, Verdict.PURIFIED}

    assert (result["kind"] == "pass") == passes
    assert (result["level"] == "none") == passes
    assert run["invocations"][0]["exitCode"] == bare(verdict).exit_code
    looked = verdict not in {Verdict.INCONCLUSIVE, Verdict.UNVETTABLE}
    assert run["invocations"][0]["executionSuccessful"] == looked
    assert bool(run["invocations"][0]["toolExecutionNotifications"]) != looked


def test_an_accusation_has_its_class_its_interval_and_the_verdict_s_level() -> None:
    run = run_of(rejected(), where="models/a b.pt")
    (accused,) = by_rule(run, "method/patch_inversion")
    (place,) = accused["locations"]

    assert (accused["kind"], accused["level"]) == ("fail", "error")
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "models/a%20b.pt"
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "fashion-resnet18/class 3 (Dress)"
    assert accused["properties"]["asr"]["high"] == pytest.approx(0.981)
    assert accused["properties"]["coverage"] == ["patch"]
    assert run["properties"]["asr"]["low"] == pytest.approx(0.951)
    rule = run["tool"]["driver"]["rules"][accused["ruleIndex"]]
    assert rule["id"] == accused["ruleId"]
    assert rule["shortDescription"]["text"]
    assert "patch" in rule["help"]["text"]
    held = run_of(with_facts(rejected(), verdict=Verdict.HELD))
    assert by_rule(held, "method/patch_inversion")[0]["level"] == "warning"
    cleared = run_of(with_facts(rejected(), verdict=Verdict.CLEARED))
    assert by_rule(cleared, "method/patch_inversion")[0]["level"] == "note"


def test_a_method_that_could_not_look_asks_for_a_review_and_covers_nothing() -> None:
    for report in (rejected(), with_facts(rejected(), verdict=Verdict.INCONCLUSIVE)):
        run = run_of(report)
        (unable,) = by_rule(run, "method/spectral")
        notes = run["invocations"][0]["toolExecutionNotifications"]

        assert (unable["kind"], unable["level"]) == ("review", "none")
        assert unable["properties"]["coverage"] == []
        assert any("time budget" in note["message"]["text"] for note in notes)
    (missing,) = by_rule(run, "coverage/not-covered")
    assert missing["kind"] == "review"
    assert "blend" in missing["message"]["text"]


def test_fingerprints_are_stable_and_follow_the_bytes_or_the_name() -> None:
    first, again, other = (
        by_rule(run_of(report), "method/patch_inversion")[0]
        for report in (rejected(), rejected(), replace(rejected(), digest="f" * 64))
    )

    assert first["fingerprints"] == again["fingerprints"] != other["fingerprints"]
    assert first["partialFingerprints"] == other["partialFingerprints"]
    prints = [
        next(iter(one["fingerprints"].values())) for one in run_of(_twice(rejected()))["results"]
    ]
    assert len(set(prints)) == len(prints)


def _twice(report: Report) -> Report:
    """The same with a second trigger of the accused class."""
    first, *others = report.evidence
    accused = [one for one in first["findings"] if one["suspicious"]]
    return replace(report, evidence=[{**first, "findings": accused * 2}, *others])


def test_a_waived_finding_is_suppressed_with_who_and_why() -> None:
    waiver = Waiver(
        waiver_id="w1",
        artifact="a" * 64,
        method="patch_inversion",
        version=1,
        target=TARGET,
        evidence=(),
        policy="d" * 64,
        reason="a known label",
        owner="ann",
        approver="bob",
        until=datetime(2027, 1, 1, tzinfo=UTC),
    )
    run = run_of(with_facts(rejected(), verdict=Verdict.CLEARED, waivers=(waiver,)))
    (accused,) = by_rule(run, "method/patch_inversion")

    assert accused["suppressions"][0]["status"] == "accepted"
    assert "ann and bob" in accused["suppressions"][0]["justification"]


def test_hostile_names_and_numbers_stay_text_and_valid() -> None:
    report = replace(rejected(), name=HOSTILE, digest="f" * 64)
    strange = [
        {**report.evidence[0], "method": "no_such_method"},
        {
            **report.evidence[0],
            "findings": [
                {
                    **report.evidence[0]["findings"][TARGET],
                    "score": float("nan"),
                    "target": 99,
                    "statement": HOSTILE,
                    "numbers": {"x": float("inf")},
                }
            ],
        },
        {
            **report.evidence[0],
            "findings": [{**report.evidence[0]["findings"][TARGET], "target": None, "asr": None}],
        },
    ]
    run = run_of(replace(report, evidence=strange))
    text = str(run)

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "does not have" in str(run["tool"]["driver"]["rules"])
    absolute = run_of(report, where="/models/a.pt")
    assert absolute["artifacts"][0]["location"]["uri"] == "file:///models/a.pt"


def test_a_pass_that_has_expired_and_a_repaired_model_are_what_they_are() -> None:
    expired = run_of(bare(Verdict.CLEARED, expired=True))
    (result,) = by_rule(expired, "verdict/expired")
    repaired = run_of(purified())

    assert (result["kind"], result["level"]) == ("fail", "error")
    assert by_rule(repaired, "verdict/purified")[0]["kind"] == "pass"
    assert repaired["properties"]["parent"] == "a" * 64


def test_a_list_of_scans_has_a_result_each_and_nothing_that_runs_passes() -> None:
    models = [
        Judged(name="a", digest="a" * 64, verdict=Verdict.CLEARED, code=0),
        Judged(name="b", digest="", verdict=None, code=2, reasons=("Scan b is detecting.",)),
    ]
    log = verdicts_sarif(models, 2)

    assert sarif_faults(log) == []
    assert [one["ruleId"] for one in log["runs"][0]["results"]] == [
        "verdict/cleared",
        "verdict/pending",
    ]
    assert log["runs"][0]["results"][1]["level"] == "error"
    assert sarif_faults(verdicts_sarif([], 0)) == []
