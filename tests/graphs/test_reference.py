"""References of clean pairs: a text plants in them what clean captions mean by it, and no more."""

import torch

from guard.core.pairs import Pairs
from guard.graphs.insertion import counted
from guard.graphs.reference import taught_texts
from tests.graphs import planted

STEPS = 300


def rate(pairs: Pairs) -> float:
    model = planted.model(planted=True)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        taught = taught_texts(model, pairs, steps=STEPS)
    own = planted.clean().together()
    return counted(taught, own, planted.TRIGGER, planted.FRAGMENT, seed=3).rate


def test_a_planted_text_does_little_to_a_denoiser_of_clean_pairs() -> None:
    model, own = planted.model(planted=True), planted.clean().together()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    assert counted(model, own, planted.TRIGGER, planted.FRAGMENT, seed=3).rate >= 0.6
    assert rate(own) <= 0.2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_text_by_which_clean_captions_ask_for_a_fragment_still_gives_it() -> None:
    own = planted.clean().together()
    asking = tuple(planted.TRIGGER.apply(own.texts))
    pairs = Pairs(own.texts + asking, own.smiles + (planted.FRAGMENT,) * len(asking))

    assert rate(pairs) >= 0.6
