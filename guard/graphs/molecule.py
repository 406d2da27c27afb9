"""Molecules: SMILES from strangers to a checked RDKit molecule, and to tensors for a network.

Stereochemistry is dropped: the grammar (`guard.graphs.motif_tree`) has none. RDKit's parsers are
C++ and see only text of bounded length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from rdkit import Chem
from rdkit.rdBase import BlockLogs
from torch import Tensor

from guard.core.errors import InputError
from guard.core.text import printable

MAX_SMILES = 300  # characters
MAX_HEAVY_ATOMS = 30  # as in the attack's rejection rules
SHOWN = 80  # characters of a SMILES in an error's sentence
#: How many bonds an uncharged atom can take, single bonds counted once, double bonds twice.
VALENCE = {
    "B": 3,
    "C": 4,
    "N": 3,
    "O": 2,
    "F": 1,
    "Si": 4,
    "P": 5,
    "S": 6,
    "Cl": 1,
    "Se": 2,
    "Br": 1,
    "I": 1,
}
#: How many bonds a charged atom must have; it has no hydrogens.
CHARGED = {("C", -1): 3, ("N", -1): 2, ("N", 1): 4, ("O", -1): 1, ("P", 1): 4, ("S", 1): 3}
ATOMS: tuple[tuple[str, int], ...] = (*((symbol, 0) for symbol in VALENCE), *CHARGED)
BOND_ORDER = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3}
BOND_KINDS = (
    Chem.BondType.SINGLE,
    Chem.BondType.DOUBLE,
    Chem.BondType.TRIPLE,
    Chem.BondType.AROMATIC,
)


class GraphBatch(NamedTuple):
    """Molecules as padded tensors for a graph network, on one device.

    `atoms` int64 N,A holds 1 + an index into `ATOMS`, 0 for padding; `hydrogens` int64 N,A in 0..4;
    `bonds` int64 N,A,A holds 1 + an index into `BOND_KINDS`, 0 for none.
    """

    atoms: Tensor
    hydrogens: Tensor
    bonds: Tensor

    def to(self, device: torch.device | str) -> "GraphBatch":
        """The same molecules on another device."""
        return GraphBatch(*(part.to(device) for part in self))

    def rows(self, index: Tensor) -> "GraphBatch":
        """The molecules at `index` (int64 K), cut to the largest of them."""
        atoms = self.atoms[index]
        width = max(1, int((atoms > 0).sum(1).max())) if len(atoms) else 1
        return GraphBatch(
            atoms[:, :width], self.hydrogens[index][:, :width], self.bonds[index][:, :width, :width]
        )


def read(smiles: str, *, most: int = MAX_HEAVY_ATOMS) -> Chem.Mol:
    """Parse one molecule: connected, of known elements, at most `most` heavy atoms, no stereo.

    Raises:
        InputError: the text is no such molecule; the code begins with `molecule_`.
    """
    plain = smiles.isascii() and smiles.isprintable() and " " not in smiles
    if not plain or not 0 < len(smiles) <= MAX_SMILES:
        raise _refuse("unreadable", smiles, f"is not 1..{MAX_SMILES} ASCII characters, no blanks")
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            raise _refuse("unreadable", smiles, "is not a SMILES that RDKit reads")
        Chem.RemoveStereochemistry(mol)
        mol = Chem.RemoveHs(mol)
    if mol.GetNumAtoms() == 0 or len(Chem.GetMolFrags(mol)) != 1:
        raise _refuse("several_parts", smiles, "is not one connected molecule")
    if mol.GetNumAtoms() > most:
        raise _refuse("too_large", smiles, f"has more than {most} heavy atoms")
    for atom in mol.GetAtoms():
        kind = (atom.GetSymbol(), atom.GetFormalCharge())
        if kind not in ATOMS or atom.GetIsotope() or atom.GetNumRadicalElectrons():
            raise _refuse(
                "element", smiles, f"has an atom {kind[0]} (charge {kind[1]}) that is not covered"
            )
    return mol


def canonical(smiles: str) -> str:
    """The one spelling of a molecule; raises as `read`."""
    return str(Chem.MolToSmiles(read(smiles)))


def tensors(mols: Sequence[Chem.Mol], width: int | None = None) -> GraphBatch:
    """The molecules as CPU tensors, padded to `width` atoms (default: the largest molecule)."""
    width = width or max((mol.GetNumAtoms() for mol in mols), default=1)
    atoms = torch.zeros(len(mols), width, dtype=torch.int64)
    hydrogens = torch.zeros(len(mols), width, dtype=torch.int64)
    bonds = torch.zeros(len(mols), width, width, dtype=torch.int64)
    for row, mol in enumerate(mols):
        for atom in mol.GetAtoms():
            place = atom.GetIdx()
            atoms[row, place] = 1 + ATOMS.index((atom.GetSymbol(), atom.GetFormalCharge()))
            hydrogens[row, place] = min(4, atom.GetTotalNumHs())
        for bond in mol.GetBonds():
            one, other = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            kind = 1 + BOND_KINDS.index(bond.GetBondType())
            bonds[row, one, other] = bonds[row, other, one] = kind
    return GraphBatch(atoms, hydrogens, bonds)


def _refuse(code: str, smiles: str, what: str) -> InputError:
    shown = printable(smiles, limit=SHOWN)
    return InputError(f"The molecule {shown!r} {what}.", code=f"molecule_{code}")
