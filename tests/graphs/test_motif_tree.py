import pytest
from rdkit import Chem

from guard.core.errors import InputError
from guard.graphs.molecule import read
from guard.graphs.motif_tree import Node, molecule_of, motif, tree_of, walk
from tests.graphs.corpus import SMILES

TRICKY = (
    "Cc1ccccc1C",  # both Kekulé forms
    "O=c1cccc[nH]1",  # a carbonyl that takes a ring's aromaticity away
    "Cn1ccnc1",  # a substituted nitrogen
    "Cc1c[nH]cn1",
    "Cc1cnc[nH]1",
    "CS(=O)(=O)c1ccccc1",
    "CN=[N+]=[N-]",
    "C1CC12CC2",  # spiro
    "Cc1ccc2ccccc2c1",
    "c1ccc(-c2ccccc2)cc1",
    "CP(=O)(O)O",
    "O=C(Cl)CCC1CS1",
    "Fc1cc(Cl)c(Br)cn1",
    "CC1=CCC(C)=CC1",
)


@pytest.mark.parametrize("smiles", [*SMILES, *TRICKY])
def test_a_molecule_survives_being_taken_apart(smiles: str) -> None:
    mol = molecule_of(tree_of(read(smiles)))

    assert mol is not None
    assert Chem.MolToSmiles(mol) == Chem.MolToSmiles(read(smiles))


@pytest.mark.parametrize("smiles", TRICKY)
def test_the_tree_does_not_depend_on_the_spelling(smiles: str) -> None:
    mol = Chem.MolFromSmiles(smiles)
    spellings = {Chem.MolToSmiles(mol, rootedAtAtom=place) for place in range(mol.GetNumAtoms())}

    trees = {tree_of(read(Chem.MolToSmiles(read(one)))) for one in spellings}

    assert len(trees) == 1


def test_a_motif_knows_its_entries_and_what_its_atoms_can_take() -> None:
    assert motif("C1CS1").entries == (0, 2)
    assert motif("C1CS1").room == (2, 2, 4)
    assert motif("c1ccccc1").entries == (0,)
    assert set(motif("c1ccccc1").room) == {1}
    assert motif("[N+]").room == (4,)


@pytest.mark.parametrize(
    "name",
    ["", "C" * 81, "c1ccccc", "C1SC1", "CC", "CC1CC1", "C1CC1.C1CC1", "C1CC1C1CC1", "[Fe]", "é",
     "C1C[NH2+]1", "C1[13CH2]C1"],
)  # fmt: skip
def test_what_is_no_canonical_ring_system_or_atom_is_no_motif(name: str) -> None:
    with pytest.raises(InputError) as caught:
        motif(name)

    assert caught.value.code == "motif_refused"


@pytest.mark.parametrize("smiles", ["C[n+]1ccccc1", "C[NH+](C)CC([O-])=O"])
def test_charged_rings_and_charged_atoms_with_hydrogens_are_refused(smiles: str) -> None:
    with pytest.raises(InputError) as caught:
        tree_of(read(smiles))

    assert caught.value.code in {"motif_refused", "molecule_element"}


def test_walking_visits_every_node_and_a_bad_tree_gives_nothing() -> None:
    tree = tree_of(read("CC(=O)OCC1CS1"))

    assert len(list(walk(tree))) == len(tree) == 6
    assert molecule_of(Node("F", 0, 0, 0, (Node("C", 2, 0, 0),))) is None
