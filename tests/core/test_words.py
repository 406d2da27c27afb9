"""The small words: digests, errors, states, the shelf."""

import hashlib
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core import errors
from guard.core.digests import canonical_json, is_digest, json_digest, sha256
from guard.core.errors import GuardError, UnknownMethod
from guard.core.shelf import Shelf, class_name
from guard.core.states import (
    EXIT_CODES,
    NEXT_STATES,
    SERVABLE_VERDICTS,
    ScanState,
    Verdict,
    may_move,
)


def test_a_digest_is_64_small_hexadecimal_digits() -> None:
    good = sha256(b"x")

    assert good == hashlib.sha256(b"x").hexdigest()
    assert is_digest(good)
    for bad in (good.upper(), good[:-1], good + "0", good + "\n", "", None, 5, good.encode()):
        assert not is_digest(bad)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_order_of_keys_does_not_matter_to_a_json_digest(value: dict[str, object]) -> None:
    other = dict(reversed(value.items()))

    assert canonical_json(value) == canonical_json(other)
    assert json_digest(value) == json_digest(other)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_that_are_not_finite_have_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(value)


ALL_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GuardError)
]


def test_every_error_stands_in_the_drawn_tree_with_a_code_of_its_own() -> None:
    drawing = errors.__doc__ or ""

    assert all(kind.__name__ in drawing for kind in ALL_ERRORS)
    assert len({kind.code for kind in ALL_ERRORS}) == len(ALL_ERRORS)
    assert all(inspect.getdoc(kind) for kind in ALL_ERRORS)


def test_an_error_carries_its_sentence_and_code() -> None:
    error = errors.ArtifactRejected("It is broken.", code="broken_rule")

    assert (str(error), error.sentence, error.code) == (
        "It is broken.",
        "It is broken.",
        "broken_rule",
    )
    assert errors.ArtifactRejected("x").code == "artifact_rejected"


def test_a_task_that_arrives_twice_may_stay_where_it_is() -> None:
    assert all(may_move(state, state) for state in ScanState)


@pytest.mark.row(27)
def test_every_state_has_its_next_states_and_reaches_an_end() -> None:
    assert set(NEXT_STATES) == set(ScanState)
    for state in ScanState:
        reached, grown = {state}, True
        while grown:
            more = {new for old in reached for new in NEXT_STATES[old]}
            grown = not more <= reached
            reached |= more
        assert ScanState.FAILED in reached or state is ScanState.FAILED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ScanState.DONE, ScanState.QUEUED),
        (ScanState.QUEUED, ScanState.PUBLISHING),
        (ScanState.FAILED, ScanState.DONE),
        (ScanState.DETECTING, ScanState.PUBLISHING),
        (ScanState.INSPECTING, ScanState.PUBLISHING),
    ],
)
def test_no_state_leads_past_the_decision(old: ScanState, new: ScanState) -> None:
    assert not may_move(old, new)


def test_only_two_verdicts_may_be_served_and_only_they_exit_with_zero() -> None:
    assert {Verdict.CLEARED, Verdict.PURIFIED} == SERVABLE_VERDICTS
    assert set(EXIT_CODES) == set(Verdict)
    assert {verdict for verdict, code in EXIT_CODES.items() if code == 0} == SERVABLE_VERDICTS


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf[object]:
    package = tmp_path / "a_shelf_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "good_method.py").write_text("class GoodMethod: ...\n")
    (package / "explodes.py").write_text("raise RuntimeError('imported')\n")
    (package / "_machinery.py").write_text("raise RuntimeError('imported')\n")
    (package / "Not-A-Name.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Shelf("a_shelf_of_tests")


def test_a_shelf_lists_its_files_without_importing_them(shelf: Shelf[object]) -> None:
    assert shelf.names() == ["explodes", "good_method"]


def test_a_method_is_the_class_named_after_its_file(shelf: Shelf[object]) -> None:
    assert shelf.get("good_method").__name__ == class_name("good_method") == "GoodMethod"


@pytest.mark.parametrize(
    "name",
    ["", "os", "../good_method", "_machinery", "good_method.py", "Not-A-Name", "good method"],
)
def test_a_name_that_is_not_on_the_shelf_is_refused_before_any_import(
    shelf: Shelf[object], name: str
) -> None:
    with pytest.raises(UnknownMethod, match="explodes, good_method"):
        shelf.get(name)


def test_a_package_that_is_not_there_is_an_empty_shelf() -> None:
    assert Shelf("no_such_package_at_all").names() == []
