"""Each abuse case is held by a marked test or is missing for a stated reason."""

from pathlib import Path

import pytest

from benchmarks import make_threat_doc


def test_the_table_of_the_threat_model_is_made_from_the_markers() -> None:
    assert make_threat_doc.DOCUMENT.read_text() == make_threat_doc.page(), (
        "run: python -m benchmarks.make_threat_doc"
    )


def test_every_case_is_held_or_missing_for_a_reason() -> None:
    known = make_threat_doc.cases()

    assert make_threat_doc.problems(known, make_threat_doc.held_by()) == []
    assert [sum(case.startswith(letter) for case in known) for letter in "ABC"] == [24, 12, 26]
    assert not [
        text
        for facts in known.values()
        for text in facts.values()
        if "|" in text or text[-1] == "."
    ]


@pytest.mark.parametrize(
    ("known", "held", "says"),
    [
        ({}, {"A01": []}, "a marker names a case that is not known"),
        ({"A01": {"title": "t"}}, {}, "either a marked test or a reason"),
        ({"A01": {"title": "t", "control": "c", "missing": "m"}}, {"A01": []}, "either"),
        ({"A01": {"title": "t"}}, {"A01": []}, "needs a control"),
        ({"A1": {"title": "t", "missing": "m"}}, {}, "its number"),
        ({"A01": {"title": "t", "missing": "m", "why": "w"}}, {}, "a key"),
    ],
)
def test_what_does_not_fit_together_is_named(
    known: dict[str, dict[str, str]], held: dict[str, object], says: str
) -> None:
    assert says in " ".join(make_threat_doc.problems(known, held))


def test_markers_are_read_from_tests_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    file = folder / "test_a.py"
    file.write_text('import pytest\n\n@pytest.mark.threat("A01", "B02")\ndef test_b(): ...\n')

    place = ("tests/test_a.py", "test_b")
    assert make_threat_doc.held_by(folder) == {"A01": [place], "B02": [place]}

    file.write_text('import pytest\n\npytestmark = pytest.mark.threat("A01")\n')
    with pytest.raises(ValueError, match=r"on no test: lines \[3\]"):
        make_threat_doc.held_by(folder)
