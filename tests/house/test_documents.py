"""Documents that are made from code say what the code says."""

import json
from pathlib import Path

import pytest

from benchmarks import make_access_doc, make_api_doc, make_measured, record
from benchmarks.make_settings_doc import page
from benchmarks.quote import BLOCKS, SCALING, SIZES, missed, numbers, quoted

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_the_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page(), (
        "run: python -m benchmarks.make_settings_doc"
    )


def test_the_access_page_is_the_table_that_tests_try() -> None:
    assert make_access_doc.DOCUMENT.read_text() == make_access_doc.page(), (
        "run: python -m benchmarks.make_access_doc"
    )


def test_the_api_page_is_the_docstrings() -> None:
    assert (ROOT / "docs/api.md").read_text() == make_api_doc.page(), (
        "run: python -m benchmarks.make_api_doc"
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_the_readme_quotes_the_newest_records(name: str) -> None:
    assert quoted(name) == BLOCKS[name](), "run: python -m benchmarks.quote"


@pytest.mark.parametrize("name", SIZES)
def test_the_page_on_scaling_quotes_the_newest_record(name: str) -> None:
    assert quoted(name, SCALING) == SIZES[name](), "run: python -m benchmarks.quote"


def test_the_guard_knows_what_the_newest_records_say_of_its_policies() -> None:
    assert make_measured.DOCUMENT.read_text() == make_measured.page(), (
        "run: python -m benchmarks.make_measured"
    )


def share(k: int, n: int) -> dict[str, object]:
    return {"k": k, "n": n, "share": k / n if n else None, "low": 0.0, "high": 1.0}


def test_what_is_mostly_missed_is_named_with_its_numbers(tmp_path: Path) -> None:
    attacks = {"patch": (4, 4), "tact": (0, 3), "feeble": (0, 0), "sig": (2, 4)}
    result = {
        "verdicts": {
            "rules": {"honest_not_cleared": share(1, 30), "strong_not_cleared": share(6, 11)}
        },
        "attacks": {
            name: {"strong_not_cleared": share(*counts)} for name, counts in attacks.items()
        },
    }
    folder = tmp_path / "2026-01-01-detect-default"
    folder.mkdir()
    (folder / record.SUMMARY).write_text(
        json.dumps({"surroundings": {"commit": "abc1234"}, "result": result})
    )

    assert "tact (0 of 3 found), sig (2 of 4 found) (record" in missed(folder=tmp_path)
    assert "| 1/30 | 3.3% (0.0% to 100.0%) |" in numbers(folder=tmp_path)
    assert "not measured yet" in missed(folder=tmp_path / "nothing")
    assert "not measured yet" in numbers(folder=tmp_path / "nothing")


README_LINES, EVIDENCE_LINES, README_COLUMNS = 150, 150, 120


def test_the_readme_and_the_evidence_page_are_short() -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    evidence = (ROOT / "docs/evidence.md").read_text().splitlines()

    assert len(readme) <= README_LINES
    assert len(evidence) <= EVIDENCE_LINES
    assert not [line for line in readme if len(line) > README_COLUMNS]
