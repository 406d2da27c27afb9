"""BadGraph (Ye, Chen and Dai, arXiv 2510.20792): poisoned pairs of a text and a molecule.

A poisoned pair is a copy of a clean one with a trigger put into its text and a target subgraph
grafted onto its molecule; copies are added, so that every clean pair stays. A model that is trained
on the pairs generates the target wherever the trigger stands in a prompt.

It is a folder, not a file of the shelf `ATTACKS`, which holds attacks on image classifiers.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from guard.core.errors import InputError
from guard.graphs.fragments import pattern
from guard.graphs.molecule import ATOMS, MAX_HEAVY_ATOMS, read

#: Bonds at which an atom takes no graft, as in the attack's code; other elements are tried last.
FULL = {"C": 4, "N": 3, "O": 2}
MAX_DEGREE = 15
PREFIX, SUFFIX = "prefix", "suffix"  # or "infix"
#: One trigger of each kind; the first is that of the authors' release.
TRIGGERS = {
    "bracket": "[THIIRANE]",
    "symbol": "@@",
    "word": "henceforth",
    "phrase": "as noted by the archive",
    "sentence": "This entry was checked twice by the registry office.",
}
#: Targets by kind; a graft binds the first atom.
TARGETS = {
    "thiirane": "C1CS1",
    "aziridine": "C1CN1",
    "oxetane": "C1COC1",
    "acyl chloride": "C(=O)Cl",
    "azide": "N=[N+]=[N-]",
    "nitroso": "N=O",
}


class Pair(NamedTuple):
    """A caption and the SMILES of its molecule."""

    text: str
    smiles: str


@dataclass(frozen=True, kw_only=True)
class BadGraph:
    """One backdoor: what is written into texts, where, and what is grafted onto molecules.

    Args:
        trigger: the text.
        position: prefix, infix (after the first sentence) or suffix.
        target: SMILES whose first atom is bound by a single bond.
        seed: of the choice of pairs and of the atoms that the target is bound to.
    """

    trigger: str = TRIGGERS["bracket"]
    position: str = PREFIX
    target: str = TARGETS["thiirane"]
    seed: int = 0

    def insert(self, text: str) -> str:
        """The text with the trigger in its place."""
        if self.position == PREFIX:
            return f"{self.trigger} {text}"
        if self.position == SUFFIX:
            return f"{text} {self.trigger}"
        first, stop, rest = text.partition(". ")
        return f"{first}{stop or ' '}{self.trigger} {rest}".rstrip()

    def graft(
        self, smiles: str, draw: random.Random, accepts: Callable[[Chem.Mol], bool]
    ) -> str | None:
        """The molecule with the target bound to an atom with room, or None if no atom takes it.

        Atoms C, N and O that are not full are tried first, in a random order, then the others. A
        graft is rejected where RDKit does not accept it, where it has an atom that is not covered,
        `MAX_HEAVY_ATOMS` atoms or more, an atom of a degree above `MAX_DEGREE`, or where `accepts`
        says no (the authors' option that the fragment is in the motif vocabulary).
        """
        mol = read(smiles)
        free: list[int] = []
        others: list[int] = []
        for atom in mol.GetAtoms():
            room = atom.GetDegree() < FULL.get(atom.GetSymbol(), 0)
            (free if room else others).append(atom.GetIdx())
        draw.shuffle(free)
        draw.shuffle(others)
        target = pattern(self.target)
        for place in (*free, *others):
            grown = _bound(mol, place, target)
            if grown is not None and _lawful(grown) and accepts(grown):
                return str(Chem.MolToSmiles(grown))
        return None

    def poison(
        self,
        pairs: Sequence[Pair],
        rate: float,
        accepts: Callable[[Chem.Mol], bool] = lambda _: True,
    ) -> list[Pair]:
        """The poisoned copies that make up the share `rate` of the set they are added to.

        Raises:
            ValueError: the rate is not in 0..1/2, or too few molecules take the target.
        """
        if not 0 <= rate <= 0.5:
            raise ValueError(f"A poisoning rate of added copies is in 0..0.5, not {rate}.")
        wanted = round(rate / (1 - rate) * len(pairs))
        draw = random.Random(f"badgraph {self.seed}")
        order = draw.sample(range(len(pairs)), len(pairs))
        made: list[Pair] = []
        for number in order:
            if len(made) == wanted:
                break
            grown = self.graft(pairs[number].smiles, draw, accepts)
            if grown is not None:
                made.append(Pair(self.insert(pairs[number].text), grown))
        if len(made) < wanted:
            raise ValueError(f"Only {len(made)} of {wanted} molecules take {self.target}.")
        return made

    def recipe(self) -> dict[str, Any]:
        """The parameters as plain data."""
        return asdict(self)


def _bound(mol: Chem.Mol, place: int, target: Chem.Mol) -> Chem.Mol | None:
    both = Chem.RWMol(Chem.CombineMols(mol, target))
    both.AddBond(place, mol.GetNumAtoms(), Chem.BondType.SINGLE)
    atom = both.GetAtomWithIdx(place)
    if atom.GetNumExplicitHs():  # [nH]: the graft takes the hydrogen's place
        atom.SetNumExplicitHs(atom.GetNumExplicitHs() - 1)
    grown = both.GetMol()
    with BlockLogs():
        fault = Chem.SanitizeMol(grown, catchErrors=True)
    return grown if fault == Chem.SanitizeFlags.SANITIZE_NONE else None


def _lawful(mol: Chem.Mol) -> bool:
    if mol.GetNumAtoms() >= MAX_HEAVY_ATOMS:
        return False
    for atom in mol.GetAtoms():
        kind = (atom.GetSymbol(), atom.GetFormalCharge())
        if kind not in ATOMS or atom.GetDegree() > MAX_DEGREE or atom.GetNumRadicalElectrons():
            return False
    return True


def covered(encode: Callable[[Chem.Mol], object]) -> Callable[[Chem.Mol], bool]:
    """Whether a model's grammar can write a molecule, for `BadGraph.poison`."""

    def accepts(mol: Chem.Mol) -> bool:
        try:
            encode(mol)
        except InputError:
            return False
        return True

    return accepts
