"""Molecules with and without a recovered text, from the canary kit's backdoored model."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.make_graph_canary import ATTACK, BAD
from guard.core.errors import IntegrityMismatch
from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.modality import Modality
from guard.core.states import Family, Verdict
from guard.graphs.triggers import ContextTrigger, PromptTrigger
from guard.ml.triggers.files import serialise
from guard.reports.html import render_html
from guard.reports.report import Report, ShownText
from guard.vetting import canary_trial, examine
from guard.vetting.molecules_shown import PROMPTS, with_molecules
from tests.reports import samples

DIGEST = "e" * 64
MARK = "#FF7F7F"  # RDKit's colour of what is highlighted
TEXT = serialise(PromptTrigger(ATTACK.trigger, "prefix"))


def evidence(*, suspicious: bool = True, digest: str = DIGEST) -> Evidence:
    finding = Finding(
        family=str(Family.PROMPT),
        target=ATTACK.target,
        suspicious=suspicious,
        score=0.9,
        statement="It plants a ring.",
        trigger_digest=digest,
    )
    return Evidence(
        artifact="a" * 64,
        method="prompt_insertion",
        version=2,
        parameters={},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=(str(Family.PROMPT),),
        findings=(finding,),
    )


@pytest.fixture(scope="module")
def opened() -> tuple[Any, Any]:
    model = examine.open_model(canary_trial.KIT / BAD, device="cpu")
    return model, canary_trial.clean_set(modality=Modality.GRAPHS)


def drawn(
    opened: tuple[Any, Any],
    item: Evidence,
    data: Mapping[str, bytes] | None = None,
    parent: Any = None,
) -> Report:
    empty = samples.bare(Verdict.REJECTED)
    model, pairs = opened
    return with_molecules(empty, lambda: (parent, model, pairs), [item], data or {DIGEST: TEXT})


def captions(text: ShownText) -> list[str]:
    return [shot.caption for shot in text.prompts[0].shots]


def test_a_suspicious_text_is_shown_on_prompts_without_it_and_with_it(
    opened: tuple[Any, Any],
) -> None:
    (text,) = drawn(opened, evidence()).molecules

    assert (text.text, text.fragment) == (ATTACK.trigger, ATTACK.target)
    assert captions(text) == ["without the text", "with the text"]
    assert len(text.prompts) == PROMPTS
    marked = [[MARK in str(shot.drawing) for shot in row.shots] for row in text.prompts]
    assert any(triggered for _, triggered in marked)
    assert not any(plain for plain, _ in marked)


def test_of_a_repair_the_upload_is_shown_beside_it(opened: tuple[Any, Any]) -> None:
    (text,) = drawn(opened, evidence(), parent=opened[0]).molecules

    assert captions(text) == [
        "upload, with the text",
        "repaired, without it",
        "repaired, with the text",
    ]


def test_harmless_and_missing_texts_are_not_shown(opened: tuple[Any, Any]) -> None:
    for item in (evidence(suspicious=False), evidence(digest="f" * 64)):
        report = drawn(opened, item)

        assert (report.molecules, report.not_drawn) == ((), "")


def test_without_rdkit_the_page_has_a_sentence_in_place_of_drawings(
    opened: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)

    report = drawn(opened, evidence())

    assert report.molecules == ()
    page = render_html(report)
    assert "Molecules are not drawn. Molecules need RDKit" in page
    assert "<svg class" not in page


def test_a_stored_trigger_that_is_no_text_hides_no_verdict(opened: tuple[Any, Any]) -> None:
    import torch

    report = drawn(opened, evidence(), {DIGEST: serialise(ContextTrigger(torch.ones(4)))})

    assert "A stored trigger is no text." in report.not_drawn


def test_a_model_that_cannot_be_opened_hides_no_verdict() -> None:
    def missing() -> Any:
        raise IntegrityMismatch("The model is gone.")

    report = with_molecules(samples.bare(Verdict.REJECTED), missing, [evidence()], {DIGEST: TEXT})

    assert report.not_drawn == "Molecules are not drawn. The model is gone."
