"""Drawings of molecules as SVG, with a fragment marked.

RDKit makes them from atoms and bonds; no text of an upload is written into them.
"""

from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from guard.graphs.fragments import pattern

WIDTH, HEIGHT = 200, 140  # pixels


def drawn(mol: Chem.Mol, fragment: str) -> str:
    """The molecule as an SVG document; atoms and bonds of the fragment are marked.

    Raises:
        InputError: the fragment is no SMILES.
    """
    wanted = pattern(fragment)
    matches = [list(one) for one in mol.GetSubstructMatches(wanted)]
    bonds = {
        mol.GetBondBetweenAtoms(match[bond.GetBeginAtomIdx()], match[bond.GetEndAtomIdx()]).GetIdx()
        for match in matches
        for bond in wanted.GetBonds()
    }
    canvas = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    rdMolDraw2D.PrepareAndDrawMolecule(
        canvas,
        Chem.Mol(mol),
        highlightAtoms=sorted({atom for match in matches for atom in match}),
        highlightBonds=sorted(bonds),
    )
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())
