"""The first screen's sentences, and images that cannot be made."""

from dataclasses import replace
from typing import Any

import pytest

from guard.console._standing import standing_of
from guard.core.notes import Attempt
from guard.core.roles import Role
from guard.core.states import GateMode, ScanState, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.flow import exhibits
from guard.flow.principals import Forbidden, Principal
from guard.flow.report import facts_for
from guard.store import exhibits as kept
from guard.store.session import reading
from tests.console.scene import Scene

RITA = Principal(name="rita", role=Role.REVIEWER, token_id="x")


def test_what_may_be_done_follows_from_verdict_state_and_person(
    shown: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, scan = facts_for(shown.guard, shown.held), shown.scan(shown.held)
    passed = Attempt(defense="ft", verdict=Verdict.CLEARED)
    repaired = replace(scan, detail=replace(scan.detail, candidates=(passed,)))
    late = replace(report, expired=True)
    rejected = replace(late, facts=replace(report.facts, verdict=Verdict.REJECTED))

    def look(who: Principal, scan: Any, report: Any) -> tuple[str, bool, bool]:
        found = standing_of(shown.guard, who, scan, report)
        return found.sentence.split(":")[0].split(".")[0], found.approve, found.reject

    purifying = replace(scan, state=ScanState.PURIFYING)
    assert look(RITA, scan, report) == ("Yes, you may approve or reject it", True, True)
    assert look(RITA, purifying, report) == ("Nothing yet", False, False)
    assert look(RITA, repaired, report)[0] == "Nothing is to be decided"
    assert look(RITA, scan, late)[1:] == (False, True)
    assert look(RITA, scan, rejected)[0] == "No"
    ann = replace(RITA, name="ann")
    assert look(ann, scan, report) == ("You may reject it, but not approve it", False, True)

    def bar(*_: object) -> None:
        raise Forbidden("rita is no reviewer of project a.")

    monkeypatch.setattr("guard.console._standing.check_reviewer", bar)
    assert look(RITA, scan, report) == ("rita is no reviewer of project a", False, False)


def test_what_nothing_vouches_for_is_named(shown: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    report, scan = facts_for(shown.guard, shown.held), shown.scan(shown.held)
    blind = {**report.evidence[0], "outcome": "could_not_look", "reason": "no time"}
    gate = Gated(mode=GateMode.WARN, would_be=WouldBe.HELD)
    facts = replace(report.facts, evidence=(), known_gaps=None, gate=gate)
    monkeypatch.setattr("guard.store.uploaders.of_scan", lambda *_: frozenset())

    doubts = standing_of(
        shown.guard, RITA, scan, replace(report, evidence=[blind], facts=facts)
    ).doubts

    for part in ("could not look: no time", "Nobody recorded who", "only warns", "No method"):
        assert part in " ".join(doubts)


def test_images_that_cannot_be_made_are_not_tried_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr(exhibits, "stored", fail)

    assert exhibits.draw(scene.guard, scene.held)

    assert exhibits.due(scene.guard) == []
    with reading(scene.guard.engine) as session:
        found = kept.find(session, scene.scan(scene.held).verdict_id or "")
    assert found == {"failed": "The images cannot be made (ValueError)."}
