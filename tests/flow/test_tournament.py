"""What ends a tournament, and what only ends one candidate."""

from pathlib import Path
from typing import Any

import pytest

import guard
from guard.core.errors import Cancelled
from guard.core.states import ScanState
from guard.defenses import DEFENSES
from guard.flow import purify, review, stage
from guard.policy.rules import DefenseRule
from guard.store import scans
from guard.store.session import transaction
from tests.cli.models import clean_set, saved
from tests.flow.place import Place
from tests.flow.test_stages import decided, finding


def ends_with(error: Exception, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """`guard purify` of a backdoored model by a defense that ends so."""
    def repair(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(DEFENSES.get("fine_tune"), "repair", repair)
    return guard.purify(saved(folder / "bad", backdoored=True), cleanset=clean_set(folder / "clean.npz"),
                        out=folder / "out", defense="fine_tune")


def test_who_cancels_ends_the_whole_tournament(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Cancelled, match="enough"):
        ends_with(Cancelled("enough"), monkeypatch, tmp_path)

    assert not (tmp_path / "out").exists()


def test_a_crash_ends_one_candidate_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = ends_with(RuntimeError("no memory"), monkeypatch, tmp_path)

    (candidate,) = report.candidates
    assert candidate["failed"] == "It crashed: RuntimeError: no memory"
    assert candidate["seconds"] >= 0
    assert not (tmp_path / "out").exists()


def test_the_next_defense_is_the_first_that_was_not_tried_whatever_the_policy_was() -> None:
    rules = [DefenseRule(name="a"), DefenseRule(name="b"), DefenseRule(name="a", params={"rate": 1.0})]

    assert purify._next(rules, []) == rules[0]
    assert purify._next(rules, [{"defense": "b"}]) == rules[0]  # the policy put `a` first meanwhile
    assert purify._next(rules, [{"defense": "gone"}, {"defense": "a"}]) == rules[1]
    assert purify._next(rules, [{"defense": "a"}, {"defense": "b"}]) == rules[2]
    assert purify._next(rules, [{"defense": "a"}, {"defense": "b"}, {"defense": "a"}]) is None


def test_a_held_candidate_that_a_reviewer_clears_wins(tmp_path: Path) -> None:
    place = Place(tmp_path)
    parent = decided(place, finding(suspicious=True))
    child = place.upload(seed=1)
    assert stage.work(place.guard, "inspect", child)
    place.with_evidence(child, finding(suspicious=True, natural=0.97))
    assert stage.work(place.guard, "decide", child)
    first = place.guard.policy.defenses[0].name
    with transaction(place.guard.engine) as session:
        scans.move(session, parent, ScanState.PURIFYING, place.clock,
                   detail={"candidates": [{"defense": first, "child": child}]})
    review.approve(place.guard, child, "bob", "the class is a white square by nature")

    stage.work(place.guard, "purify", parent)

    assert place.scan(parent).state is ScanState.DONE
    assert place.scan(parent).detail["candidates"] == [{"defense": first, "child": child, "verdict": "cleared"}]
