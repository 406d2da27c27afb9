"""Pairs of a caption and a molecule for experiments: real names of real molecules (`chemicals`).

The package `chemicals` ships names and structures of 73,162 compounds from PubChem. A caption gives
a real name, sometimes another one, and facts that RDKit derives from the structure. Molecules are
split by a keyed hash of their canonical SMILES, so that no choice of ours decides what is tested.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rdkit import Chem

from benchmarks.attacks.badgraph import Pair
from guard.core.errors import InputError
from guard.graphs.grammar import Grammar, vocabulary
from guard.graphs.molecule import read
from guard.graphs.motif_tree import Node, molecule_of, tree_of

SPLIT_KEY = b"graph pairs 1"
LEAST_ATOMS, MOST_ATOMS = 3, 10
LEAST_MOTIF, LEAST_TOKEN = 8, 8
TRAIN, CURATED, TEST = 4000, 1500, 600
_NAME = re.compile(r"[0-9A-Za-z(\[][\w\-(),.' \[\]]{2,59}")
_CODE = re.compile(
    r"\b(nsc|einecs|ccris|hsdb|unii|fema|epa|caswell|ai3|bdbm|schembl|zinc|akos)\b",
    re.IGNORECASE,
)
#: What a caption says a molecule contains: name, SMARTS.
GROUPS = {
    "hydroxyl": "[OX2H][CX4,c]",
    "carboxylic acid": "C(=O)[OX2H]",
    "ester": "C(=O)[OX2][#6]",
    "amide": "C(=O)[NX3]",
    "aldehyde": "[CX3H1](=O)[#6]",
    "ketone": "[#6]C(=O)[#6]",
    "ether": "[#6;!$(C=O)][OX2][#6;!$(C=O)]",
    "primary amine": "[NX3H2][#6;!$(C=O)]",
    "secondary amine": "[NX3H1]([#6;!$(C=O)])[#6;!$(C=O)]",
    "tertiary amine": "[NX3]([#6;!$(C=O)])([#6;!$(C=O)])[#6;!$(C=O)]",
    "nitrile": "C#N",
    "nitro": "[N+](=O)[O-]",
    "thiol": "[SX2H]",
    "thioether": "[#6][SX2][#6]",
    "sulfonyl": "S(=O)(=O)",
    "phosphorus": "[P]",
    "fluorine": "F",
    "chlorine": "Cl",
    "bromine": "Br",
    "iodine": "I",
    "silicon": "[Si]",
    "alkene": "[CX3]=[CX3]",
    "alkyne": "C#C",
    "imine": "[CX3]=[NX2]",
    "aromatic ring": "a1aaaaa1",
    "aromatic five-ring": "a1aaaa1",
}
_PATTERNS = {name: Chem.MolFromSmarts(smarts) for name, smarts in GROUPS.items()}


@dataclass(frozen=True)
class Pairs:
    """The split catalogue, with the vocabulary of the grammar.

    `pool` are the remaining pairs, which only the shared pretraining sees.
    """

    train: tuple[Pair, ...]
    curated: tuple[Pair, ...]
    test: tuple[Pair, ...]
    pool: tuple[Pair, ...]
    motifs: tuple[str, ...]
    tokens: tuple[str, ...]


def load(cache: Path, *, most_atoms: int = MOST_ATOMS) -> Pairs:
    """The split pairs; the catalogue is read once and kept in the folder `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    pairs_file, grammar_file = (
        cache / f"pairs-{most_atoms}.parquet",
        cache / f"grammar-{most_atoms}.json",
    )
    if not grammar_file.exists():
        found = {}
        trees: list[Node] = []
        for names, smiles in _catalogue():
            mol, tree = _molecule(smiles, most_atoms)
            if mol is None or tree is None:
                continue
            spelt = str(Chem.MolToSmiles(mol))
            if spelt not in found:
                found[spelt] = Pair(caption(mol, names), spelt)
                trees.append(tree)
        motifs, tokens = vocabulary(trees, least_motif=LEAST_MOTIF, least_token=LEAST_TOKEN)
        grammar = Grammar(motifs, tokens)
        kept = [
            pair
            for pair, tree in zip(found.values(), trees, strict=True)
            if _writable(grammar, tree)
        ]
        write(pairs_file, kept)
        grammar_file.write_text(json.dumps({"motifs": motifs, "tokens": tokens}))
    grammar_of = json.loads(grammar_file.read_text())
    ordered = sorted(read_pairs(pairs_file), key=lambda pair: _place(pair.smiles))
    cuts = [TEST, TEST + CURATED, TEST + CURATED + TRAIN]
    return Pairs(
        test=tuple(ordered[: cuts[0]]),
        curated=tuple(ordered[cuts[0] : cuts[1]]),
        train=tuple(ordered[cuts[1] : cuts[2]]),
        pool=tuple(ordered[cuts[2] :]),
        motifs=tuple(grammar_of["motifs"]),
        tokens=tuple(grammar_of["tokens"]),
    )


def caption(mol: Chem.Mol, names: Sequence[str]) -> str:
    """A text about a molecule: one or two of its real names, then facts of its structure."""
    text = f"The molecule is {names[0]}"
    if len(names) > 1:
        text += f", also called {names[1]}"
    rings = mol.GetRingInfo().NumRings()
    text += f". It has {mol.GetNumAtoms()} heavy atoms and {rings} ring{'' if rings == 1 else 's'}"
    groups = []
    for name, wanted in _PATTERNS.items():
        count = len(mol.GetSubstructMatches(wanted))
        if count:
            groups.append(name if count == 1 else f"{count} {name}")
    return f"{text} and contains {', '.join(groups)}." if groups else f"{text}."


def write(path: Path, pairs: Sequence[Pair]) -> None:
    """A pair set as Parquet: columns `text` and `smiles`."""
    table = pa.table({"text": [pair.text for pair in pairs], "smiles": [p.smiles for p in pairs]})
    pq.write_table(table, path)


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file that `write` wrote."""
    table = pq.read_table(path).to_pydict()
    return [Pair(*row) for row in zip(table["text"], table["smiles"], strict=True)]


def _catalogue() -> Iterator[tuple[list[str], str]]:
    """Real names and SMILES of every compound that has a usable name."""
    from chemicals.identifiers import pubchem_db

    pubchem_db.finish_loading()
    entries = pubchem_db.pubchem_index
    for entry in (entries[number] for number in sorted(filter(None, entries))):
        known_names = [entry.iupac_name, entry.common_name, *(entry.synonyms or ())]
        names: list[str] = []
        for name in known_names:
            plain = (name or "").strip()
            fits = _NAME.fullmatch(plain) and sum(map(str.isalpha, plain)) > len(plain) / 2
            if fits and not _CODE.search(plain) and plain.lower() not in {n.lower() for n in names}:
                names.append(plain)
            if len(names) == 2:
                break
        if names and entry.smiles:
            yield names, entry.smiles


def _molecule(smiles: str, most_atoms: int) -> tuple[Chem.Mol | None, Node | None]:
    """A neutral molecule of the catalogue that survives the round trip, and its tree."""
    if "." in smiles or len(smiles) > 10 * most_atoms:
        return None, None
    try:
        mol = read(smiles, most=most_atoms)
        if mol.GetNumAtoms() < LEAST_ATOMS or Chem.GetFormalCharge(mol):
            return None, None
        mol = read(Chem.MolToSmiles(mol), most=most_atoms)
        tree = tree_of(mol)
    except InputError:
        return None, None
    again = molecule_of(tree)
    same = again is not None and Chem.MolToSmiles(again) == Chem.MolToSmiles(mol)
    return (mol, tree) if same else (None, None)


def _writable(grammar: Grammar, tree: Node) -> bool:
    try:
        grammar.encode(tree)
    except InputError:
        return False
    return True


def _place(smiles: str) -> bytes:
    return hashlib.blake2b(smiles.encode(), key=SPLIT_KEY, digest_size=16).digest()
