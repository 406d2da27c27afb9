"""Every error code has a cause and a mend, and docs/troubleshooting.md says them."""

from pathlib import Path

import pytest

from benchmarks import error_codes, make_error_doc
from guard.formats import _jail

ENTRIES = [code for section in make_error_doc.table().values() for code in section]


def test_every_code_of_the_sources_has_a_cause_and_a_mend() -> None:
    missing = {
        code: places
        for code, places in error_codes.error_codes().items()
        if code not in set(ENTRIES)
    }

    assert not missing, "add cause and mend to benchmarks/error_table.toml"


def test_no_entry_is_about_a_code_that_nothing_raises() -> None:
    assert not set(ENTRIES) - set(error_codes.error_codes())
    assert len(ENTRIES) == len(set(ENTRIES))


def test_every_entry_is_two_sentences() -> None:
    for section in make_error_doc.table().values():
        for code, entry in section.items():
            cause, mend = entry

            assert cause.endswith("."), code
            assert mend.endswith("."), code
            assert "|" not in cause + mend, code


def test_the_troubleshooting_page_is_made_from_them() -> None:
    assert make_error_doc.DOCUMENT.read_text() == make_error_doc.page(), (
        "run: python -m benchmarks.make_error_doc"
    )


def test_what_the_jail_may_answer_is_known() -> None:
    (codes,) = error_codes.COMPUTED["guard/formats/_jail.py"].values()

    assert set(codes) == set(_jail._REASONS)


def sources(root: Path, text: str) -> Path:
    for folder in error_codes.SOURCES:
        (root / folder).mkdir()
    (root / "guard" / "a.py").write_text(text)
    return root


def test_codes_are_found_in_classes_arguments_and_functions_that_make_errors(
    tmp_path: Path,
) -> None:
    root = sources(
        tmp_path,
        """
class Away(Exception):
    code = "away"

def refuse(code, sentence):
    return Away(sentence, code=f"set_{code}")

def of(error):
    raise Away("no", code="gone")
    raise refuse("empty", "no")
    raise Away("no", code=error.code)
""",
    )

    assert list(error_codes.error_codes(root)) == ["away", "gone", "set_empty"]


def test_a_code_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    root = sources(tmp_path, 'name = "x"\nraise ValueError("no", code="a" + name)\n')

    with pytest.raises(error_codes.Unreadable, match="computes its code"):
        error_codes.error_codes(root)
