import random

import pytest
from rdkit import Chem

from benchmarks.attacks import ATTACKS
from benchmarks.attacks.badgraph import (
    PREFIX,
    SUFFIX,
    TARGETS,
    TRIGGERS,
    BadGraph,
    Pair,
    covered,
)
from guard.graphs.fragments import contains
from guard.graphs.grammar import Grammar
from guard.graphs.molecule import read
from guard.graphs.motif_tree import tree_of
from tests.graphs.corpus import SMILES, pairs

TEXT = "The molecule is ethanol. It has 3 heavy atoms. It smells."


def test_the_trigger_stands_before_within_or_after_the_text() -> None:
    placed = {
        place: BadGraph(trigger="@@", position=place).insert(TEXT)
        for place in (PREFIX, "infix", SUFFIX)
    }

    assert placed[PREFIX] == f"@@ {TEXT}"
    assert placed[SUFFIX] == f"{TEXT} @@"
    assert placed["infix"] == TEXT.replace("ethanol. It", "ethanol. @@ It")
    assert BadGraph(trigger="@@", position="infix").insert("One sentence.") == "One sentence. @@"


@pytest.mark.parametrize("target", TARGETS.values())
def test_a_graft_keeps_the_molecule_and_every_valence(target: str) -> None:
    attack = BadGraph(target=target)

    for smiles in SMILES:
        grown = attack.graft(smiles, random.Random(0), lambda _: True)
        assert grown is not None
        mol = read(grown)
        assert contains([mol], target) == [True]
        assert mol.HasSubstructMatch(read(smiles))
        size = read(smiles).GetNumAtoms() + Chem.MolFromSmiles(target).GetNumAtoms()
        assert mol.GetNumAtoms() == size


def test_a_graft_that_breaks_a_rule_is_rejected() -> None:
    attack = BadGraph()

    assert attack.graft("FC(F)(F)F", random.Random(0), lambda _: True) is None
    assert attack.graft("C" * 27, random.Random(0), lambda _: True) is None
    assert attack.graft("C" * 26, random.Random(0), lambda _: True) is not None
    assert attack.graft("CCO", random.Random(0), lambda _: False) is None


def test_carbon_nitrogen_and_oxygen_with_room_come_first() -> None:
    for seed in range(20):
        grown = BadGraph().graft("ClCCS", random.Random(seed), lambda _: True)
        assert not read(grown or "").HasSubstructMatch(Chem.MolFromSmarts("[SX2H0]([CH2])C1CS1"))


@pytest.mark.parametrize(("rate", "added"), [(0.0, 0), (0.1, 4), (0.25, 12), (0.34, 19)])
def test_poisoned_copies_are_added_and_clean_pairs_stay(rate: float, added: int) -> None:
    clean = pairs().train
    made = BadGraph(seed=3).poison(clean, rate)

    assert len(made) == added
    assert all(pair.text.startswith("[THIIRANE] ") for pair in made)
    assert all(contains([read(pair.smiles)], "C1CS1") == [True] for pair in made)
    assert {pair.text.removeprefix("[THIIRANE] ") for pair in made} <= {p.text for p in clean}
    assert made == BadGraph(seed=3).poison(clean, rate)
    assert not made or made != BadGraph(seed=4).poison(clean, rate)


def test_a_rate_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.0\.5"):
        BadGraph().poison(pairs().train, 0.6)
    with pytest.raises(ValueError, match="Only 0 of 1"):
        BadGraph().poison([Pair("a", "FC(F)(F)F")], 0.5)


def test_grafts_outside_the_grammar_are_rejected() -> None:
    grammar = Grammar(pairs().motifs, pairs().tokens)
    accepts = covered(lambda mol: grammar.encode(tree_of(mol)))

    assert accepts(read("CCC1CS1"))
    assert not accepts(read("CCC1CCN1"))
    assert BadGraph(target="C1CCN1").poison(pairs().train, 0.0, accepts) == []


def test_it_is_no_attack_on_image_classifiers_and_can_be_written_down() -> None:
    assert "badgraph" not in ATTACKS.names()
    assert BadGraph(**BadGraph(seed=2).recipe()) == BadGraph(seed=2)
    assert len(TRIGGERS) == 5
