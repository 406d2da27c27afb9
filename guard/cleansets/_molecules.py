"""Read the SMILES of a clean set: canonical form, elements, size. The one user of RDKit here."""

from dataclasses import dataclass

from guard.core.molecules import CHARGED, ELEMENTS, MAX_HEAVY_ATOMS, MAX_SMILES


@dataclass(frozen=True)
class Molecule:
    """One molecule: canonical SMILES without stereochemistry, its elements, its heavy atoms."""

    smiles: str
    elements: frozenset[str]
    heavy_atoms: int


def problem_or_molecule(text: str) -> str | Molecule:
    """The molecule that a SMILES describes, or a clause about why it is none for a clean set.

    Stereochemistry is dropped, since the models have none: mirror images count as one molecule.
    """
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    if len(text) > MAX_SMILES:
        return f"has a SMILES of more than {MAX_SMILES} characters"
    if "." in text:
        return "holds several components; keep one connected molecule"
    with BlockLogs():
        molecule: Chem.Mol | None = Chem.MolFromSmiles(text)
    if molecule is None or molecule.GetNumAtoms() == 0:
        return f"has a SMILES that RDKit cannot read: {text[:60]!a}"
    Chem.RemoveStereochemistry(molecule)
    molecule = Chem.RemoveHs(molecule)
    atoms = list(molecule.GetAtoms())
    elements = frozenset(atom.GetSymbol() for atom in atoms)
    if odd := sorted(elements - ELEMENTS):
        return f"holds the element {odd[0]}; known here: {', '.join(sorted(ELEMENTS))}"
    for atom in atoms:
        charge = atom.GetFormalCharge()
        if charge and (atom.GetSymbol(), charge) not in CHARGED:
            return f"holds {atom.GetSymbol()} with the charge {charge:+d}, which no model here has"
        if atom.GetIsotope() or atom.GetNumRadicalElectrons():
            return "holds an isotope or a radical, which no model here has"
    if len(atoms) > MAX_HEAVY_ATOMS:
        return f"holds {len(atoms)} heavy atoms; at most {MAX_HEAVY_ATOMS} are known here"
    return Molecule(smiles=Chem.MolToSmiles(molecule), elements=elements, heavy_atoms=len(atoms))
