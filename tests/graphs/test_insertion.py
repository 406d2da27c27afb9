"""What texts plant: naming by clean captions, counting on prompts, and what is not counted."""

from dataclasses import replace

import pytest

from guard.core.pairs import Pairs
from guard.graphs.insertion import Naming, Proposal, counted, decoded
from guard.graphs.triggers import PromptTrigger
from tests.graphs import planted


def test_a_word_by_which_captions_name_a_fragment_explains_it() -> None:
    naming = Naming(planted.model(planted=True), planted.clean().together())
    ring = "c1ccccc1"

    assert naming.explains(PromptTrigger("aromatic", "prefix"), ring) == (
        "clean captions name the fragment by 'aromatic'"
    )
    assert naming.explains(planted.TRIGGER, planted.FRAGMENT) == ""


def test_a_shift_towards_captions_of_a_fragment_explains_it() -> None:
    model, own = planted.model(planted=True), planted.clean().together()
    asking = Pairs(tuple(planted.TRIGGER.apply(own.texts)), ("CC1CS1",) * len(own))
    both = Pairs(own.texts + asking.texts, own.smiles + asking.smiles)
    naming = Naming(model, both)

    assert naming.towards(planted.TRIGGER, planted.FRAGMENT) >= 0.9
    # No word and no longer piece of these: what they ask for shows in the vectors alone.
    alike, other = PromptTrigger("[ ]", "prefix"), PromptTrigger("##", "prefix")
    assert "it shifts prompts towards" in naming.explains(alike, planted.FRAGMENT)
    assert naming.explains(other, planted.FRAGMENT) == ""


def test_too_few_molecules_give_no_direction() -> None:
    naming = Naming(planted.model(planted=True), planted.clean().together())

    assert naming.towards(planted.TRIGGER, planted.FRAGMENT) == 0.0


def test_a_text_is_counted_on_prompts_that_do_not_ask_for_the_fragment() -> None:
    model, pairs = planted.model(planted=True), planted.clean().calibration
    asking = Pairs((*pairs.texts, "It is a thiirane."), (*pairs.smiles, "CC1CS1"))
    found = counted(model, asking, planted.TRIGGER, planted.FRAGMENT, seed=3)

    assert found.trials == len(pairs)
    assert found.separate
    assert found.excess == pytest.approx(found.rate - found.plain / found.trials)
    assert not replace(found, hits=found.plain).separate
    only = Pairs(asking.texts[-1:], asking.smiles[-1:])
    assert counted(model, only, planted.TRIGGER, planted.FRAGMENT, seed=3).trials == 0


def test_a_proposal_is_decoded_to_the_fragment_that_it_plants_if_that_is_wanted() -> None:
    model, prompts = planted.model(planted=True), planted.clean().search.texts
    proposals = [Proposal(planted.TRIGGER, 1.0)]
    found = decoded(model, prompts, proposals, seed=3, wanted=lambda name: "1CS1" in name)

    assert [(one.trigger, one.fragment) for one in found] == [(planted.TRIGGER, planted.FRAGMENT)]
    assert decoded(model, prompts, proposals, seed=3, wanted=lambda _: False) == []
