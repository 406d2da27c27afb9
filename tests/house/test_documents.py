"""Documents that are made from code say what the code says."""

import json
from pathlib import Path

import pytest

from benchmarks import make_measured
from benchmarks.make_settings_doc import page
from benchmarks.quote import BLOCKS, missed, quoted

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_the_settings() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page(), (
        "run: python -m benchmarks.make_settings_doc"
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_the_readme_quotes_the_newest_records(name: str) -> None:
    assert quoted(name) == BLOCKS[name](), "run: python -m benchmarks.quote"


def test_the_guard_knows_what_the_newest_records_say_of_its_policies() -> None:
    assert make_measured.DOCUMENT.read_text() == make_measured.page(), (
        "run: python -m benchmarks.make_measured"
    )


def test_what_is_mostly_missed_is_named_with_its_numbers(tmp_path: Path) -> None:
    def share(k: int, n: int) -> dict[str, object]:
        return {"k": k, "n": n, "share": k / n if n else None, "low": 0.0, "high": 1.0}

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
    (folder / "result.json").write_text(
        json.dumps({"surroundings": {"commit": "abc1234"}, "result": result})
    )

    words = missed(folder=tmp_path)

    assert "tact (0 of 3 found), sig (2 of 4 found)." in words
    assert "1/30 = 3.3%" in words
    assert "not measured yet" in missed(folder=tmp_path / "nothing")
