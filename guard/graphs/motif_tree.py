"""Molecules as trees of motifs: ring systems and single atoms, joined by bonds between them.

A motif is named by its canonical SMILES. `tree_of` takes a molecule apart in one canonical way,
`molecule_of` puts it together again; the round trip is exact for every molecule that `tree_of`
accepts. Ring systems are cut from a kekulised copy, so that what stands outside a ring (a
carbonyl's oxygen, a substituent of a nitrogen) leaves a motif that is a molecule of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from guard.core.errors import InputError
from guard.core.text import printable
from guard.graphs.molecule import BOND_ORDER, CHARGED, VALENCE

MAX_MOTIF_SMILES = 80  # characters
MAX_MOTIF_ATOMS = 20
_MATCHES = 200  # symmetries of a motif that are looked at; benzene has 12
_ORDERS = {order: kind for kind, order in BOND_ORDER.items()}
SULPHUR = "S"


@dataclass(frozen=True)
class Motif:
    """A building block: atoms (symbol, charge), bonds (atom, atom, order) with order 1..3.

    `room` holds how many bonds each atom can take beside those inside the motif, `entries` one atom
    for each class of symmetric atoms that has room.
    """

    smiles: str
    atoms: tuple[tuple[str, int], ...]
    bonds: tuple[tuple[int, int, int], ...]
    room: tuple[int, ...]
    entries: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def exacting(self) -> bool:
        """Whether an atom may need a bond: charged ones and sulphur do."""
        return any(charge or symbol == SULPHUR for symbol, charge in self.atoms)

    @property
    def single(self) -> bool:
        """Whether it is one atom."""
        return len(self.atoms) == 1


@dataclass(frozen=True)
class Node:
    """A motif in a tree; `bond` (0 at the root) joins its atom `entry` to the parent's `at`."""

    motif: str
    bond: int
    entry: int
    at: int
    children: tuple["Node", ...] = ()

    def __len__(self) -> int:
        return 1 + sum(len(child) for child in self.children)


@lru_cache(maxsize=4096)
def motif(smiles: str) -> Motif:
    """Read a motif by its name.

    Raises:
        InputError: `motif_refused`: too long, not read by RDKit, not canonical, not one ring system
            or one atom, or with an element or charge that is not covered.
    """
    atom = _single_atom(smiles)
    if atom is not None:
        most = CHARGED.get(atom, VALENCE.get(atom[0], 0))
        return Motif(smiles, (atom,), (), (most,), (0,))
    mol = _ring_system(smiles)
    flat = Chem.Mol(mol)
    Chem.Kekulize(flat, clearAromaticFlags=True)
    bonds = tuple(
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), BOND_ORDER[bond.GetBondType()])
        for bond in flat.GetBonds()
    )
    used = [0] * mol.GetNumAtoms()
    for one, other, order in bonds:
        used[one] += order
        used[other] += order
    atoms = tuple((one.GetSymbol(), 0) for one in mol.GetAtoms())
    room = tuple(VALENCE[symbol] - taken for (symbol, _), taken in zip(atoms, used, strict=True))
    if min(room) < 0:
        raise _refuse(smiles, "has an atom with too many bonds")
    least = {place: place for place in range(len(atoms))}
    for match in _symmetries(mol, mol):
        for place, image in enumerate(match):
            least[image] = min(least[image], place)
    entries = tuple(place for place in range(len(atoms)) if least[place] == place and room[place])
    return Motif(smiles, atoms, bonds, room, entries)


def tree_of(mol: Chem.Mol) -> Node:
    """Take a molecule from `guard.graphs.molecule.read` apart.

    Raises:
        InputError: `motif_refused`: a ring system is charged or cannot stand alone.
    """
    parts = _parts(mol)
    owner = {atom: number for number, part in enumerate(parts) for atom in part.places}
    flat = Chem.Mol(mol)
    Chem.Kekulize(flat, clearAromaticFlags=True)
    links: dict[int, list[tuple[int, int, int]]] = {number: [] for number in range(len(parts))}
    for bond in flat.GetBonds():
        one, other = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if owner[one] != owner[other]:
            order = BOND_ORDER[bond.GetBondType()]
            links[owner[one]].append((one, other, order))
            links[owner[other]].append((other, one, order))
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=True))

    def root_key(number: int) -> tuple[int, int, int]:
        part = parts[number]
        return -len(part.places), len(links[number]), min(ranks[atom] for atom in part.places)

    root = min(range(len(parts)), key=root_key)
    return _grow(root, None, parts=parts, links=links, owner=owner, ranks=ranks)


def molecule_of(root: Node) -> Chem.Mol | None:
    """Put a molecule together; None if RDKit does not accept it."""
    mol = Chem.RWMol()
    _add(mol, root, 0)
    whole = mol.GetMol()
    with BlockLogs():
        fault = Chem.SanitizeMol(whole, catchErrors=True)
    return whole if fault == Chem.SanitizeFlags.SANITIZE_NONE else None


def _add(mol: Chem.RWMol, node: Node, parent_offset: int) -> None:
    block, offset = motif(node.motif), mol.GetNumAtoms()
    for symbol, charge in block.atoms:
        atom = Chem.Atom(symbol)
        atom.SetFormalCharge(charge)
        mol.AddAtom(atom)
    for one, other, order in block.bonds:
        mol.AddBond(offset + one, offset + other, _ORDERS[order])
    if node.bond:
        mol.AddBond(parent_offset + node.at, offset + node.entry, _ORDERS[node.bond])
    for child in node.children:
        _add(mol, child, offset)


def walk(root: Node) -> Iterator[Node]:
    """All nodes, parents first."""
    yield root
    for child in root.children:
        yield from walk(child)


@dataclass(frozen=True)
class _Part:
    """A motif's place in a molecule: `mappings` are the ways it fits, motif atom -> place."""

    smiles: str
    places: tuple[int, ...]
    mappings: tuple[dict[int, int], ...]  # atom of the molecule -> atom of the motif


def _parts(mol: Chem.Mol) -> list[_Part]:
    rings = [set(ring) for ring in mol.GetRingInfo().AtomRings()]
    systems: list[set[int]] = []
    for ring in rings:
        joined = [system for system in systems if system & ring]
        systems = [system for system in systems if not system & ring]
        systems.append(ring.union(*joined))
    parts = [_ring_part(mol, tuple(sorted(system))) for system in systems]
    inside = set().union(*systems) if systems else set()
    for atom in mol.GetAtoms():
        if atom.GetIdx() not in inside:
            symbol, charge = atom.GetSymbol(), atom.GetFormalCharge()
            if charge and atom.GetTotalNumHs():
                raise _refuse(symbol, "is charged and has hydrogens, which the grammar has not")
            name = atom_name(symbol, charge)
            parts.append(_Part(name, (atom.GetIdx(),), ({atom.GetIdx(): 0},)))
    return parts


def atom_name(symbol: str, charge: int) -> str:
    """The motif of one atom: `C`, `[N+]`."""
    return symbol if not charge else f"[{symbol}{'+' if charge > 0 else '-'}]"


def _ring_part(mol: Chem.Mol, places: tuple[int, ...]) -> _Part:
    flat = Chem.Mol(mol)
    Chem.Kekulize(flat, clearAromaticFlags=True)
    cut = Chem.RWMol()
    for place in places:
        atom = flat.GetAtomWithIdx(place)
        if atom.GetFormalCharge():
            raise _refuse(str(Chem.MolToSmiles(mol)), "has a charged atom in a ring")
        cut.AddAtom(Chem.Atom(atom.GetSymbol()))
    for one, place in enumerate(places):
        for other in range(one):
            bond = flat.GetBondBetweenAtoms(place, places[other])
            if bond is not None:
                cut.AddBond(one, other, bond.GetBondType())
    alone = cut.GetMol()
    with BlockLogs():
        fault = Chem.SanitizeMol(alone, catchErrors=True)
    if fault != Chem.SanitizeFlags.SANITIZE_NONE:
        raise _refuse(str(Chem.MolToSmiles(mol)), "has a ring that cannot stand alone")
    smiles = str(Chem.MolToSmiles(alone))
    block = Chem.MolFromSmiles(smiles)
    motif(smiles)
    mappings = tuple(
        {places[image]: place for place, image in enumerate(match)}
        for match in _symmetries(alone, block)
    )
    if not mappings:
        raise _refuse(smiles, "does not fit the ring that it was cut from")
    return _Part(smiles, places, mappings)


def _symmetries(mol: Chem.Mol, block: Chem.Mol) -> list[tuple[int, ...]]:
    """The ways `block` fits on `mol` atom by atom, hydrogens and aromaticity included."""
    matches = mol.GetSubstructMatches(block, uniquify=False, maxMatches=_MATCHES)
    kinds = [_kind(atom) for atom in mol.GetAtoms()]
    wanted = [_kind(atom) for atom in block.GetAtoms()]
    return [
        tuple(match)
        for match in matches
        if all(kinds[image] == wanted[place] for place, image in enumerate(match))
    ]


def _kind(atom: Chem.Atom) -> tuple[str, int, bool]:
    return atom.GetSymbol(), atom.GetTotalNumHs(), atom.GetIsAromatic()


def _grow(
    number: int,
    came: tuple[int, int, int] | None,
    *,
    parts: Sequence[_Part],
    links: dict[int, list[tuple[int, int, int]]],
    owner: dict[int, int],
    ranks: Sequence[int],
) -> Node:
    """The subtree of one part; `came` is the bond that led here: atom here, atom there, order."""
    part = parts[number]
    below = [link for link in links[number] if came is None or link[:2] != came[:2]]
    grown = [
        (
            _grow(
                owner[far],
                (far, here, order),
                parts=parts,
                links=links,
                owner=owner,
                ranks=ranks,
            ),
            here,
            far,
        )
        for here, far, order in below
    ]
    grown.sort(key=lambda item: (len(item[0]), ranks[item[2]]))
    where = [came[0]] if came else []
    where += [here for _, here, _ in grown]
    best = min(part.mappings, key=lambda mapping: [mapping[atom] for atom in where])
    children = tuple(
        Node(child.motif, child.bond, child.entry, best[here], child.children)
        for child, here, _ in grown
    )
    bond, entry = (came[2], best[came[0]]) if came else (0, 0)
    return Node(part.smiles, bond, entry, 0, children)


def _single_atom(smiles: str) -> tuple[str, int] | None:
    if smiles in VALENCE:
        return smiles, 0
    for symbol, charge in CHARGED:
        if smiles == atom_name(symbol, charge):
            return symbol, charge
    return None


def _ring_system(smiles: str) -> Chem.Mol:
    if not 0 < len(smiles) <= MAX_MOTIF_SMILES or not smiles.isascii():
        raise _refuse(smiles, f"is not 1..{MAX_MOTIF_SMILES} ASCII characters")
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise _refuse(smiles, "is not a SMILES that RDKit reads")
    if Chem.MolToSmiles(mol) != smiles:
        raise _refuse(smiles, f"is not canonical; its name is {Chem.MolToSmiles(mol)!r}")
    if not 3 <= mol.GetNumAtoms() <= MAX_MOTIF_ATOMS:
        raise _refuse(smiles, f"has not 3..{MAX_MOTIF_ATOMS} atoms")
    for atom in mol.GetAtoms():
        plain = not (atom.GetFormalCharge() or atom.GetIsotope() or atom.GetNumRadicalElectrons())
        if atom.GetSymbol() not in VALENCE or not plain:
            raise _refuse(smiles, "has an atom that is not covered in a ring")
    linked: set[int] = set()
    rings = [set(ring) for ring in mol.GetRingInfo().AtomRings()]
    while rings and (found := next((r for r in rings if not linked or r & linked), None)):
        linked |= found
        rings.remove(found)
    if len(linked) != mol.GetNumAtoms() or not all(b.IsInRing() for b in mol.GetBonds()):
        raise _refuse(smiles, "is neither one atom nor one ring system")
    return mol


def _refuse(smiles: str, what: str) -> InputError:
    shown = printable(smiles, limit=MAX_MOTIF_SMILES)
    return InputError(f"The motif {shown!r} {what}.", code="motif_refused")
