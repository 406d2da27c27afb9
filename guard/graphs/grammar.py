"""The language of molecules: a motif tree as a sequence of tokens, under masks of what may follow.

Tokens, as text: `<end>`, `<up>`, `@3` (the parent's atom 3), `^|MOTIF` (a root), `-|MOTIF|0` (a
child that is bound by its atom 0; `=` and `#` for double and triple bonds). A child token is
followed by `@` where its parent has several atoms; `<up>` leaves a motif that has room left (a full
one is left by itself), and `<end>` leaves all of them. Masks keep valences: no atom gets more bonds
than it can take, a charged atom gets all of its bonds, and sulphur ends with 2, 4 or 6 bonds or as
a thiol.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.core.errors import InputError, ManifestRejected
from guard.core.text import printable
from guard.graphs.growth import TRIPLE, State
from guard.graphs.motif_tree import MAX_MOTIF_ATOMS, Motif, Node, motif

END, UP = "<end>", "<up>"
BONDS = {"-": 1, "=": 2, "#": 3}
SIGNS = {order: sign for sign, order in BONDS.items()}
MAX_TOKENS = 5000
MAX_MOTIFS = 1000
MAX_STEPS = 100  # tokens of one molecule


@dataclass(frozen=True)
class Token:
    """One token: `kind` is end, up, at, root or child; the rest as the kind needs it."""

    kind: str
    motif: str = ""
    bond: int = 0
    entry: int = 0  # of a child; the parent's atom of `at`


class Grammar:
    """A checked vocabulary of tokens, with the tables that the masks are made from.

    Args:
        motifs: canonical SMILES of the motifs, each once.
        tokens: the tokens as text, each once; `<end>` and `<up>` come first.

    Raises:
        ManifestRejected: a motif or token is repeated or malformed, RDKit rejects a motif, an entry
            atom does not exist or has no room, or nothing can begin a molecule.
    """

    def __init__(self, motifs: Sequence[str], tokens: Sequence[str]) -> None:
        self.motifs = {name: _checked_motif(name) for name in _unique(motifs, "motifs", MAX_MOTIFS)}
        self.names = _unique(tokens, "tokens", MAX_TOKENS)
        if self.names[:2] != (END, UP):
            raise _refuse("bad_vocabulary", f"the first tokens must be {END} and {UP}")
        self.tokens = tuple(self._read(name) for name in self.names)
        self.index = {name: place for place, name in enumerate(self.names)}
        self.at = [self.index.get(f"@{place}", -1) for place in range(MAX_MOTIF_ATOMS)]
        # "cpu" even while a model is laid out on the device "meta"
        sizes = torch.tensor(
            [len(self.motifs[one.motif]) if one.motif else 0 for one in self.tokens], device="cpu"
        )
        bonds = [one.bond if one.kind == "child" else TRIPLE + 1 for one in self.tokens]
        fits = torch.tensor(bonds, device="cpu")
        self.roots = torch.tensor([one.kind == "root" for one in self.tokens], device="cpu")
        if not bool(self.roots.any()):
            raise _refuse("bad_vocabulary", "no token begins a molecule")
        children = torch.stack([fits <= room for room in range(TRIPLE + 1)])
        self.largest = int(sizes.max())
        within = sizes <= torch.arange(self.largest + 1, device="cpu").unsqueeze(1)
        #: bool 4,B,V: the children that fit on an atom with 0..3 bonds to give, in so many atoms
        self.children = children.unsqueeze(1) & within
        self.roots_in = self.roots & within  # bool B,V
        most = max(len(block) for block in self.motifs.values())
        missing = [f"@{place}" for place in range(most) if most > 1 and self.at[place] < 0]
        if missing:
            raise _refuse("bad_vocabulary", f"the token {missing[0]} is missing")

    def __len__(self) -> int:
        return len(self.names)

    def masks(self, states: Sequence[State]) -> Tensor:
        """What may follow each molecule, bool N,V; as `State.mask`, for many at once."""
        rules = [state.rule() for state in states]
        rooms = torch.tensor([max(0, rule[0]) for rule in rules])
        budgets = torch.tensor([state.budget for state in states]).clamp(0, self.largest)
        allowed = self.children[rooms, budgets]
        allowed[:, 0] = torch.tensor([rule[2] for rule in rules])
        allowed[:, 1] = torch.tensor([rule[1] for rule in rules])
        begun = [place for place, rule in enumerate(rules) if rule[0] == -1]
        if begun:
            allowed[begun] = self.roots_in[budgets[begun]]
        waiting = [place for place, rule in enumerate(rules) if rule[0] == -2]
        if waiting:
            allowed[waiting] = False
            ways = [states[place].attachments() for place in waiting]
            rows = [place for place, own in zip(waiting, ways, strict=True) for _ in own]
            allowed[rows, [token for own in ways for token in own]] = True
        return allowed

    def encode(self, tree: Node) -> list[int]:
        """A tree as token numbers, `<end>` last.

        Raises:
            InputError: `molecule_motif`: a motif or a way to bind it is not in the vocabulary, or
                the molecule breaks a rule of the grammar.
        """
        state = State(self, budget=10_000)
        written: list[int] = []

        def put(name: str) -> None:
            place = self.index.get(name)
            if place is None or not bool(state.mask()[place]):
                raise _unwritable(name)
            written.append(place)
            state.push(place)

        def visit(node: Node) -> None:
            here = len(state.nodes) - 1
            for child in node.children:
                if not any(state.nodes[here].room):
                    raise _unwritable(node.motif)
                while state.current != here:
                    put(UP)
                put(f"{SIGNS[child.bond]}|{child.motif}|{child.entry}")
                if state.pending:
                    put(f"@{child.at}")
                visit(child)

        put(f"^|{tree.motif}")
        visit(tree)
        if not state.done:
            put(END)
        else:
            written.append(self.index[END])
        return written

    def trace(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """The decoder's place (`State.place`) before each token of a valid sequence."""
        state = State(self, budget=10_000)
        places = []
        for number in numbers:
            places.append(state.place())
            if not state.done:
                state.push(number)
        return places

    def decode(self, numbers: Iterable[int]) -> Node | None:
        """The tree that a sequence writes; None if it breaks the grammar or does not end."""
        state = State(self, budget=10_000)
        for number in numbers:
            if state.done:
                break
            if not 0 <= number < len(self) or not bool(state.mask()[number]):
                return None
            state.push(number)
        return state.tree() if state.done else None

    def _read(self, name: str) -> Token:
        if name in {END, UP}:
            return Token(name.strip("<>"))
        if name.startswith("@") and name[1:].isascii() and name[1:].isdigit():
            place = int(name[1:]) if len(name) <= 3 else MAX_MOTIF_ATOMS
            if place < MAX_MOTIF_ATOMS and name == f"@{place}":
                return Token("at", entry=place)
        sign, _, rest = name.partition("|")
        if sign == "^" and rest in self.motifs:
            return Token("root", rest)
        block, _, entry = rest.partition("|")
        known = sign in BONDS and block in self.motifs and entry.isascii() and entry.isdigit()
        if not known or len(entry) > 2 or str(int(entry)) != entry:
            raise _refuse("bad_vocabulary", f"{printable(name, limit=80)!r} is no token")
        place, room = int(entry), self.motifs[block].room
        if place >= len(room) or room[place] < BONDS[sign]:
            raise _refuse(
                "entry_impossible", f"{printable(name, limit=80)!r} enters by an atom that cannot"
            )
        return Token("child", block, BONDS[sign], place)


def vocabulary(
    trees: Iterable[Node], *, least_motif: int, least_token: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The motifs and tokens that occur often enough in `trees`, most frequent first.

    Every motif can begin a molecule and be bound by a single bond at each of its entries.

    Args:
        trees: of the training set.
        least_motif: how many molecules must have a motif.
        least_token: how often a way of binding it must occur.
    """
    motifs: dict[str, int] = {}
    ways: dict[str, int] = {}
    for tree in trees:
        seen: set[str] = set()
        pile = [tree]
        while pile:
            node = pile.pop()
            pile += node.children
            seen.add(node.motif)
            if node.bond:
                way = f"{SIGNS[node.bond]}|{node.motif}|{node.entry}"
                ways[way] = ways.get(way, 0) + 1
        for name in seen:
            motifs[name] = motifs.get(name, 0) + 1
    kept = sorted((name for name, n in motifs.items() if n >= least_motif), key=_order(motifs))
    tokens = [END, UP]
    most = max(len(motif(name)) for name in kept)
    tokens += [f"@{place}" for place in range(most if most > 1 else 0)]
    tokens += [f"^|{name}" for name in kept]
    wanted = {way for way, n in ways.items() if n >= least_token and way.split("|")[1] in kept}
    wanted |= {f"-|{name}|{entry}" for name in kept for entry in motif(name).entries}
    tokens += sorted(wanted, key=_order(ways))
    return tuple(kept), tuple(tokens)


def _order(counts: Mapping[str, int]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (-counts.get(name, 0), name)


def _unwritable(name: str) -> InputError:
    return InputError(
        f"The molecule needs {printable(name)!r} in a way that the model's grammar has not.",
        code="molecule_motif",
    )


def _checked_motif(name: str) -> Motif:
    try:
        return motif(name)
    except InputError as error:
        raise ManifestRejected(error.sentence, code="manifest_motif_refused") from error


def _unique(names: Sequence[str], what: str, most: int) -> tuple[str, ...]:
    if not 0 < len(names) <= most:
        raise _refuse("bad_vocabulary", f"{what} must be 1..{most} strings")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _refuse("repeated_entry", f"{what} repeats {printable(name, limit=80)!r}")
        seen.add(name)
    return tuple(names)


def _refuse(code: str, what: str) -> ManifestRejected:
    return ManifestRejected(f"config.json: {what}.", code=f"manifest_{code}")
