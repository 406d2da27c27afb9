"""Which molecules contain a fragment, counted by substructure and never by comparing text.

A fragment is a SMILES, read as a pattern: `C1CS1` matches a thiirane wherever it is bound, also
where it is spelt `C1SC1`.
"""

from collections.abc import Sequence
from functools import lru_cache

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from guard.core.errors import InputError
from guard.core.text import printable
from guard.graphs.molecule import VALENCE
from guard.graphs.motif_tree import tree_of, walk

MAX_FRAGMENT = 120  # characters
#: Elements that SMILES write without brackets (its "organic subset").
_BARE = frozenset(("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I"))


@lru_cache(maxsize=4096)
def pattern(fragment: str) -> Chem.Mol:
    """The fragment as a substructure pattern.

    Raises:
        InputError: `fragment_unreadable`.
    """
    with BlockLogs():
        mol = Chem.MolFromSmiles(fragment) if 0 < len(fragment) <= MAX_FRAGMENT else None
    if mol is None or not mol.GetNumAtoms():
        raise InputError(
            f"The fragment {printable(fragment, limit=80)!r} is not a SMILES that RDKit reads.",
            code="fragment_unreadable",
        )
    for atom in mol.GetAtoms():
        # An atom in brackets has free valences here, which are bonds in a molecule: no radicals.
        atom.SetNumRadicalElectrons(0)
    return mol


def contains(mols: Sequence[Chem.Mol | None], fragment: str) -> list[bool]:
    """Whether each molecule has the fragment; no for None.

    A ring that is aromatic only with what is bound to it (a pyridone's) is not found by its motif.
    """
    wanted = pattern(fragment)
    return [mol is not None and mol.HasSubstructMatch(wanted) for mol in mols]


def count(mols: Sequence[Chem.Mol | None], fragment: str) -> int:
    """How many molecules have the fragment."""
    return sum(contains(mols, fragment))


def pieces_of(mol: Chem.Mol, most_bonds: int = 3) -> frozenset[str]:
    """The fragments of a molecule, as canonical SMILES that `pattern` reads.

    They are its ring systems and all connected groups of 1 to `most_bonds` bonds outside rings.
    """
    # A motif of one silicon or selenium atom is named by its symbol, which is no SMILES by itself.
    found = {
        f"[{node.motif}]" if node.motif in VALENCE and node.motif not in _BARE else node.motif
        for node in walk(tree_of(mol))
    }
    flat = Chem.Mol(mol)
    Chem.Kekulize(flat, clearAromaticFlags=True)
    for groups in Chem.FindAllSubgraphsOfLengthMToN(flat, 1, most_bonds):
        for group in groups:
            bonds = list(group)
            if any(flat.GetBondWithIdx(bond).IsInRing() for bond in bonds):
                continue
            atoms = {
                place
                for bond in bonds
                for place in (
                    flat.GetBondWithIdx(bond).GetBeginAtomIdx(),
                    flat.GetBondWithIdx(bond).GetEndAtomIdx(),
                )
            }
            found.add(str(Chem.MolFragmentToSmiles(flat, list(atoms), bonds)))
    return frozenset(found)
