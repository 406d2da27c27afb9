import random

import pytest
from rdkit import Chem

from guard.core.errors import InputError, ManifestRejected
from guard.graphs.grammar import Grammar
from guard.graphs.growth import State, grown
from guard.graphs.molecule import read
from guard.graphs.motif_tree import Node, molecule_of, tree_of
from tests.graphs.corpus import SMILES, pairs


def grammar() -> Grammar:
    return Grammar(pairs().motifs, pairs().tokens)


def test_every_molecule_of_the_corpus_is_written_and_read_back() -> None:
    language = grammar()

    for smiles in SMILES:
        numbers = language.encode(tree_of(read(smiles)))
        tree = language.decode(numbers)
        assert tree is not None
        mol = molecule_of(tree)
        assert Chem.MolToSmiles(mol) == smiles
        assert len(language.trace(numbers)) == len(numbers)


def test_rows_that_share_a_state_part_where_they_write_something_else() -> None:
    language = grammar()
    written = [language.encode(tree_of(read(smiles))) for smiles in (*SMILES, *SMILES[:3])]
    states, own = [State(language, budget=10_000)], dict.fromkeys(range(len(written)), 0)
    found: dict[int, Node] = {}
    most = 0

    for step in range(max(map(len, written))):
        follows = {row: (place, written[row][step]) for row, place in own.items()}
        states, places, trees = grown(states, follows.values())
        found |= {row: trees[one] for row, one in follows.items() if one in trees}
        own = {row: places[one] for row, one in follows.items() if one in places}
        most = max(most, len(states))

    assert len(found) == len(written)
    assert [found[row] for row in range(len(written))] == [
        tree_of(read(s)) for s in (*SMILES, *SMILES[:3])
    ]
    assert found[0] is found[len(SMILES)]
    assert most < len(SMILES)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_masks_allow_is_a_molecule(seed: int) -> None:
    language, draw = grammar(), random.Random(seed)
    state = State(language, budget=12)
    while not state.done and (allowed := state.mask().nonzero().flatten().tolist()):
        assert language.masks([state])[0].equal(state.mask())
        state.push(draw.choice(allowed))

    if state.done:
        mol = molecule_of(state.tree())
        assert mol is not None
        assert mol.GetNumAtoms() <= 12
        hydrogens = {
            (a.GetSymbol(), a.GetTotalNumHs(), a.GetTotalValence()) for a in mol.GetAtoms()
        }
        assert not any(
            symbol == "S" and count and valence > 2 for symbol, count, valence in hydrogens
        )
        assert all(not a.GetNumRadicalElectrons() for a in mol.GetAtoms())


@pytest.mark.parametrize("smiles", ["C1CCC1", "CC[Si](C)(C)C", "CN=[N+]=[N-]"])
def test_a_molecule_outside_the_vocabulary_is_refused(smiles: str) -> None:
    with pytest.raises(InputError) as caught:
        grammar().encode(tree_of(read(smiles)))

    assert caught.value.code == "molecule_motif"


def test_atoms_with_more_bonds_than_the_grammar_has_are_refused() -> None:
    language = Grammar(
        ("C", "I", "O"), ("<end>", "<up>", "^|C", "^|I", "-|I|0", "-|C|0", "=|O|0", "-|O|0")
    )

    with pytest.raises(InputError) as caught:
        language.encode(tree_of(read("CI=O")))

    assert caught.value.code == "molecule_motif"


def test_a_sequence_that_breaks_the_grammar_gives_no_tree() -> None:
    language = grammar()
    root, up = language.index["^|C"], language.index["<up>"]

    assert language.decode([up]) is None
    assert language.decode([root]) is None
    assert language.decode([len(language)]) is None


GOOD = ("<end>", "<up>", "@0", "@1", "@2", "^|C", "^|C1CS1", "-|C1CS1|0")


@pytest.mark.parametrize(
    ("motifs", "tokens", "code"),
    [
        ((), GOOD, "manifest_bad_vocabulary"),
        (("C", "C"), GOOD, "manifest_repeated_entry"),
        (("C", "C1SC1"), GOOD, "manifest_motif_refused"),
        (("C", "C1CS1"), (*GOOD, GOOD[-1]), "manifest_repeated_entry"),
        (("C", "C1CS1"), GOOD[1:], "manifest_bad_vocabulary"),
        (("C", "C1CS1"), GOOD[:5], "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD[:2], *GOOD[3:]), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "@99"), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "^|N"), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "-|C1CS1|00"), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "-|C1CS1|x"), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "~|C|0"), "manifest_bad_vocabulary"),
        (("C", "C1CS1"), (*GOOD, "-|C1CS1|3"), "manifest_entry_impossible"),
        (("C", "C1CS1"), (*GOOD, "#|C1CS1|0"), "manifest_entry_impossible"),
    ],
)
def test_a_malformed_vocabulary_is_refused(
    motifs: tuple[str, ...], tokens: tuple[str, ...], code: str
) -> None:
    with pytest.raises(ManifestRejected) as caught:
        Grammar(motifs, tokens)

    assert caught.value.code == code
