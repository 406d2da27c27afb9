import pytest
from rdkit import Chem

from guard.core.errors import InputError
from guard.graphs.fragments import (
    contains,
    count,
    pattern,
    pieces_of,
)


def mols(*smiles: str) -> list[Chem.Mol | None]:
    return [Chem.MolFromSmiles(one) for one in smiles]


def test_fragments_are_found_by_structure_and_not_by_spelling() -> None:
    found = [*mols("CC1CS1", "C1SC1CO", "CSC", "C1CCS1"), None]

    assert contains(found, "C1SC1") == [True, True, False, False, False]
    assert count(found, "C1CS1") == 2


@pytest.mark.parametrize("fragment", ["", "C(", "C" * 121])
def test_what_rdkit_does_not_read_is_no_fragment(fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        pattern(fragment)

    assert caught.value.code == "fragment_unreadable"


def test_a_molecule_has_its_rings_and_the_groups_outside_them() -> None:
    mol = Chem.MolFromSmiles("O=C(Cl)CC1CS1")

    pieces = pieces_of(mol)

    assert {"C1CS1", "O=CCl", "CC(=O)Cl"} <= pieces
    assert all(contains([mol], one) == [True] for one in pieces)


@pytest.mark.parametrize(
    "smiles",
    [
        "C[SiH](Cl)OC",
        "CC[Se]CC=[Se]",
        "CB(O)O",
        "CC(C)[N+](=O)[O-]",
        "CN=[N+]=[N-]",
        "C[S+](C)CP(C)C",
        "C[P+](C)(C)CBr",
        "C[N-]S(C)(=O)=O",
        "[C-]#[N+]CCI",
        "[O-]c1cc[se]c1Cl",
    ],
)
def test_a_molecule_has_every_piece_of_itself_also_those_with_charges_and_brackets(
    smiles: str,
) -> None:
    mol = Chem.MolFromSmiles(smiles)

    pieces = pieces_of(mol)

    assert pieces
    assert [one for one in pieces if contains([mol], one) != [True]] == []


def test_a_charge_in_a_fragment_counts() -> None:
    assert contains(mols("CC[N+](=O)[O-]", "CCN", "C[N+](C)(C)C"), "C[N+]=O") == [
        True,
        False,
        False,
    ]
