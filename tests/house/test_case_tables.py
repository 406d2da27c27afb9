"""Each abuse case and each expected feature is held by what is named, or missing for a reason."""

import re
from pathlib import Path

import pytest

from benchmarks.case_table import ROOT, CaseTable, held_by
from benchmarks.make_expectations_doc import ROWS
from benchmarks.make_threat_doc import THREATS

TABLES = [THREATS, ROWS]
RECORD = "2026-11-28-purify-exam"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.marker)
def test_a_table_is_made_from_the_markers(table: CaseTable) -> None:
    made = {"threat": "make_threat_doc", "row": "make_expectations_doc"}[table.marker]

    assert table.document.read_text() == table.page(), f"run: python -m benchmarks.{made}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.marker)
def test_every_case_is_held_or_missing_for_a_reason(table: CaseTable) -> None:
    known = table.cases()

    assert table.problems(known, table.held()) == []
    assert not [
        text
        for facts in known.values()
        for text in facts.values()
        if "|" in text or text[-1] == "."
    ]


def test_the_readme_names_each_row_that_is_not_whole() -> None:
    rows = {number for number, facts in ROWS.cases().items() if {"open", "missing"} & set(facts)}
    text = (ROOT / "README.md").read_text()
    (listed,) = re.findall(r"these are not whole: (.+?)\.\n", text, re.DOTALL)

    # Each with its reason in parentheses.
    assert sorted(re.findall(r"\b(\d+) \([^)]+\)", listed)) == sorted(rows)


def test_no_case_is_left_out() -> None:
    threats, rows = THREATS.cases(), ROWS.cases()

    assert [sum(case.startswith(letter) for case in threats) for letter in "ABC"] == [24, 12, 26]
    assert [int(row) for row in rows] == list(range(1, 61))
    for table, cases in ((THREATS, threats), (ROWS, rows)):
        assert all(sum(belongs(case) for belongs in table.groups.values()) == 1 for case in cases)


@pytest.mark.parametrize(
    ("known", "held", "says"),
    [
        ({}, {"A01": []}, "a marker names a case that is not known"),
        ({"A01": {"title": "t"}}, {}, "either a marked test or a reason"),
        ({"A01": {"title": "t", "control": "c", "missing": "m"}}, {"A01": []}, "either"),
        ({"A01": {"title": "t"}}, {"A01": []}, "needs a control"),
        ({"A01": {"title": "t", "missing": "m", "records": RECORD}}, {}, "either"),
        ({"A01": {"title": "t", "control": "c", "records": "none"}}, {}, "no record none"),
        ({"A1": {"title": "t", "missing": "m"}}, {}, "its number"),
        ({"A01": {"title": "t", "missing": "m", "why": "w"}}, {}, "a key"),
    ],
)
def test_what_does_not_fit_together_is_named(
    known: dict[str, dict[str, str]], held: dict[str, object], says: str
) -> None:
    assert says in " ".join(THREATS.problems(known, held))


def test_a_record_holds_a_case_as_a_test_does() -> None:
    assert THREATS.problems({"A01": {"title": "t", "control": "c", "records": RECORD}}, {}) == []


def test_markers_are_read_from_tests_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    file = folder / "test_a.py"
    file.write_text(
        "import pytest\n\n"
        '@pytest.mark.threat("A01", "B02")\n@pytest.mark.row(3, 12)\ndef test_b(): ...\n'
    )

    place = ("tests/test_a.py", "test_b")
    assert held_by("threat", folder) == {"A01": [place], "B02": [place]}
    assert held_by("row", folder) == {"3": [place], "12": [place]}


def test_a_marker_that_is_on_no_test_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "test_a.py"
    file.write_text('import pytest\n\npytestmark = pytest.mark.threat("A01")\n')

    with pytest.raises(ValueError, match=r"on no test: lines \[3\]"):
        held_by("threat", tmp_path)
