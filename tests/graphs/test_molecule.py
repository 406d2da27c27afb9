import pytest
from rdkit import Chem

from guard.core.errors import InputError
from guard.graphs.molecule import ATOMS, canonical, read, tensors


@pytest.mark.parametrize(
    ("smiles", "code"),
    [
        ("", "molecule_unreadable"),
        ("C" * 301, "molecule_unreadable"),
        ("C C", "molecule_unreadable"),
        ("C\x00", "molecule_unreadable"),
        ("C(", "molecule_unreadable"),
        ("C(C)(C)(C)(C)C", "molecule_unreadable"),
        ("CC.O", "molecule_several_parts"),
        ("C" * 31, "molecule_too_large"),
        ("[Fe]C", "molecule_element"),
        ("[13CH4]", "molecule_element"),
        ("C[CH2]", "molecule_element"),
        ("C[O+](C)C", "molecule_element"),
    ],
)
def test_a_text_that_is_no_covered_molecule_is_refused(smiles: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        read(smiles)

    assert caught.value.code == code
    assert caught.value.sentence.endswith(".")


def test_spelling_and_stereochemistry_do_not_matter() -> None:
    assert canonical("OC[C@H](C)N") == canonical("C[C@@H](N)CO") == canonical("CC(N)CO")


def test_a_molecule_becomes_padded_symmetric_tensors() -> None:
    batch = tensors([Chem.MolFromSmiles("C=O"), Chem.MolFromSmiles("c1ccccc1")])

    assert batch.atoms.shape == (2, 6)
    assert (
        batch.atoms[0].tolist() == [1 + ATOMS.index(("C", 0)), 1 + ATOMS.index(("O", 0))] + [0] * 4
    )
    assert batch.hydrogens[0, 0] == 2
    assert batch.bonds[0, 0, 1] == batch.bonds[0, 1, 0] == 2
    assert (batch.bonds[1] == 4).sum() == 12
    assert batch.rows(batch.atoms.new_tensor([0])).atoms.shape == (1, 2)
