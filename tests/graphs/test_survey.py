"""Fragments of what is generated: single atoms of every element that molecules may hold."""

import pytest

from guard.graphs.survey import atoms_of, fragments_of


@pytest.mark.parametrize(
    ("smiles", "atom"), [("C[SiH](Cl)C", "[Si]"), ("C[Se]C", "[Se]"), ("CO", "O")]
)
def test_a_single_atom_of_any_element_is_a_fragment_with_one_atom(smiles: str, atom: str) -> None:
    found = fragments_of(smiles)

    assert atom in found
    assert atoms_of(atom) == 1
    assert all(atoms_of(one) >= 1 for one in found)
