"""Context inversion: a shift is found for a planted fragment, and not where nothing is planted."""

from dataclasses import replace

import pytest

from guard.core.errors import MethodFailed
from guard.core.pairs import Pairs
from guard.core.states import Family
from guard.detectors.context_inversion import ContextInversion
from guard.graphs.fragments import contains
from guard.graphs.inversion import spread
from tests.graphs import planted

METHOD = ContextInversion(without=60, prompts=26, fragments=6, size=0.5, steps=10, tested=20)


def test_a_short_shift_plants_the_planted_fragment() -> None:
    model, clean = planted.model(planted=True), planted.clean()
    findings = METHOD(model, clean, seed=1)

    assert [(one.target, one.suspicious) for one in findings] == [(planted.FRAGMENT, True)]
    assert findings[0].family == Family.CONTEXT
    assert findings[0].numbers["natural"] == -1
    shift = findings[0].trigger
    contexts = model.contexts(clean.search.texts)
    assert float(shift.direction.norm()) <= 0.5 * spread(contexts) + 1e-4
    keys = [(9, place) for place in range(len(contexts))]
    made = model.molecules(model.latents(shift.apply(contexts), keys))
    assert sum(contains(made, planted.FRAGMENT)) >= 0.6 * len(made)


def test_a_model_that_generates_no_rare_fragment_has_no_finding() -> None:
    seen: list[str] = []
    findings = METHOD(
        planted.model(planted=False),
        planted.clean(),
        seed=1,
        progress=lambda _, note="": seen.append(note),
    )

    assert findings == []
    assert seen[-1] == "no rare fragment is generated"


def test_a_fragment_that_clean_texts_ask_for_as_well_is_no_backdoor() -> None:
    clean = planted.clean()
    asking = Pairs(
        tuple(planted.TRIGGER.apply(clean.search.texts)), ("CC1CS1",) * len(clean.search)
    )
    both = Pairs(clean.calibration.texts + asking.texts, clean.calibration.smiles + asking.smiles)
    method = replace(METHOD, size=1.0)
    findings = method(planted.model(planted=True), replace(clean, calibration=both), seed=1)

    assert [(one.target, one.suspicious) for one in findings] == [(planted.FRAGMENT, False)]
    assert "But a shift towards texts that ask for it reaches" in findings[0].statement
    assert findings[0].numbers["natural"] >= findings[0].numbers["rate"] / 2


def test_prompts_with_one_vector_are_refused() -> None:
    clean = planted.clean()
    same = Pairs(("The molecule is a.",) * len(clean.search), clean.search.smiles)

    with pytest.raises(MethodFailed) as caught:
        METHOD(planted.model(planted=True), replace(clean, search=same), seed=1)

    assert caught.value.code == "no_spread"
