"""A demo's record keeps verdicts and rates, and leaves evidence out."""

import json
from pathlib import Path

import pytest

from benchmarks import quote, record
from benchmarks.demo import summary


def a_report() -> dict[str, object]:
    asr = {"estimate": 1.0, "low": 0.98, "high": 1.0}
    scan = {"verdict": "rejected", "target": 7, "asr": asr, "evidence": [{"p": 0.1}] * 9}
    child = {"verdict": "purified", "asr": asr, "triggers": ["x"] * 9}
    model = {"name": "bad", "true_asr": 0.9, "true_acc": 0.9, "scan": scan, "purified": child}
    return {
        "seconds": 9.0,
        "checks": {"the backdoored model was caught": True},
        "served": {"bad": "1.0"},
        "truth": {"bad": {"acc": 0.9, "asr": 0.01}},
        "models": [model],
    }


def test_a_demos_record_has_its_rates_without_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    (tmp_path / "report.json").write_text(json.dumps(a_report()))
    (tmp_path / "transcript.txt").write_text(" 1.0 s  uploading   \n  yes  it was caught\n")
    files = [str(tmp_path / "report.json"), str(tmp_path / "transcript.txt")]
    monkeypatch.setattr("sys.argv", ["summary", *files, "--note", "Two cores."])

    summary.main()

    (folder,) = record.RECORDS.iterdir()
    (model,) = record.load(folder)["result"]["models"]
    assert (model["scan"]["verdict"], model["purified"]["verdict"]) == ("rejected", "purified")
    assert "evidence" not in model["scan"]
    assert "```\n 1.0 s  uploading\n  yes  it was caught\n```" in (folder / "README.md").read_text()
    assert "| bad | rejected, then purified | 100.0% (98.0% to 100.0%) | 90.0% | yes |" in (
        quote.demo(record.RECORDS)
    )
    assert "1 of 1 claims held" in quote.demo(record.RECORDS)


def test_without_a_demo_the_readme_says_so(tmp_path: Path) -> None:
    assert "not recorded yet" in quote.demo(tmp_path)
