"""Verdicts that an earlier release signed verify and read as they did (tests/golden/README.md)."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.attest.statement import VERDICT_TYPE, verdict_statement
from guard.attest.views import read_verdict
from guard.core.errors import IntegrityMismatch
from guard.core.plain import to_plain
from guard.core.states import Verdict
from tests.attest.making import ISSUE

GOLDEN = Path(__file__).parents[1] / "golden"
SIGNED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "envelopes.json").read_text())
TRUSTED = TrustedKeys.load(GOLDEN / "trusted.json")


@pytest.mark.parametrize("name", SIGNED)
def test_a_verdict_of_an_earlier_release_verifies_and_reads(name: str) -> None:
    statement = dsse.verify(SIGNED[name]["envelope"], TRUSTED)
    signed = statement["predicate"]

    view = read_verdict(statement)

    assert view.digest == SIGNED[name]["digest"]
    assert view.verdict is (Verdict.CLEARED if name == "approved" else Verdict(name))
    assert view.expires_at == datetime.fromisoformat(signed["expires_at"])
    assert list(view.not_covered) == signed["not_covered"]
    facts = to_plain(view.facts)
    newer = facts.keys() - signed.keys()
    assert {key: facts[key] for key in facts.keys() - newer} == {
        key: signed[key] for key in facts.keys() - newer
    }
    assert all(facts[key] is None for key in newer)  # what was not signed is not known


def test_a_natural_trigger_that_was_signed_as_the_asr_is_published_and_signed_again_apart() -> None:
    known = read_verdict(dsse.payload(SIGNED["cleared"]["envelope"]))
    apart = known.facts.natural_apart()
    again = verdict_statement(known.digest, known.facts, ISSUE)

    assert known.facts.asr is not None
    assert (apart.asr, apart.natural_trigger) == (None, known.facts.asr)
    assert (again["predicateType"], again["predicate"]["asr"]) == (VERDICT_TYPE, None)
    assert read_verdict(again).facts == apart == apart.natural_apart()


@pytest.mark.parametrize("name", sorted(SIGNED.keys() - {"cleared", "unvettable"}))
def test_the_asr_of_an_accusation_or_a_repair_stays_the_asr(name: str) -> None:
    known = read_verdict(dsse.payload(SIGNED[name]["envelope"])).facts
    assert known.asr is not None
    known = replace(known, asr=replace(known.asr, natural=known.asr.estimate))

    assert known.natural_apart() == known


def test_the_repair_of_an_earlier_release_is_read_in_full() -> None:
    repair = read_verdict(dsse.payload(SIGNED["purified"]["envelope"])).facts.purification

    assert repair is not None
    assert repair.defenses == ("shared_distillation", "sau")
    assert (repair.acc_before, repair.acc_after, repair.images) == (0.9, 0.89, 120)
    assert repair.reactivated[0].lead == pytest.approx(0.05)
    assert repair.resampled[0].searches == 4


def test_a_changed_verdict_of_an_earlier_release_is_refused() -> None:
    cleared, rejected = SIGNED["cleared"]["envelope"], SIGNED["rejected"]["envelope"]

    with pytest.raises(IntegrityMismatch):
        dsse.verify({**rejected, "payload": cleared["payload"]}, TRUSTED)
