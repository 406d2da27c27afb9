"""Molecules under construction, token by token: what may follow, and what it leads to.

The tokens and their meaning are `guard.graphs.grammar`'s.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guard.graphs.motif_tree import SULPHUR, Motif, Node

if TYPE_CHECKING:
    from guard.graphs.grammar import Grammar

TRIPLE = 3
_ODD = (3, 5)  # numbers of bonds that leave a hydrogen on sulphur of higher valence
Written = tuple[int, int]  # a state's place, and the token that follows it


@dataclass
class _Open:
    """A motif in a molecule under construction; `room` is what its atoms can still take."""

    block: Motif
    room: list[int]
    parent: int
    bond: int = 0
    entry: int = 0
    at: int = 0
    token: int = 0
    children: list[int] = field(default_factory=list)
    obliged: bool = False  # an atom still needs a bond before the motif may be left

    def look(self) -> None:
        """Set `obliged`, after each change of the room."""
        self.obliged = self.block.exacting and self._needs()

    def copy(self) -> "_Open":
        """One that can be changed by itself."""
        return replace(self, room=self.room.copy(), children=self.children.copy())

    def _needs(self) -> bool:
        for (symbol, charge), left in zip(self.block.atoms, self.room, strict=True):
            if charge and left:
                return True
            if symbol == SULPHUR and not charge and 6 - left in _ODD:
                return True
        return False


class State:
    """One molecule under construction: which tokens may follow, and what they do.

    `done` is true once it has ended; `budget` is the number of atoms that may still come.
    """

    def __init__(self, grammar: "Grammar", budget: int) -> None:
        self.grammar = grammar
        self.budget = budget
        self.nodes: list[_Open] = []
        self.current = -1
        self.pending = 0  # the child token that an attachment is due for
        self.done = False
        self._rule: tuple[int, bool, bool] | None = None  # until the next token

    def copy(self) -> "State":
        """The same molecule so far, which another token may follow."""
        other = State(self.grammar, self.budget)
        other.nodes = [node.copy() for node in self.nodes]
        other.current, other.pending, other.done = self.current, self.pending, self.done
        return other

    def rule(self) -> tuple[int, bool, bool]:
        """What may follow, in short: the room of the current motif's freest atom, up, end.

        The room is -1 at the root and -2 where an attachment is due.
        """
        if self._rule is None:
            self._rule = self._ruled()
        return self._rule

    def _ruled(self) -> tuple[int, bool, bool]:
        if self.current < 0:
            return -1, False, False
        if self.pending:
            return -2, False, False
        node = self.nodes[self.current]
        free = node.obliged
        room = min(TRIPLE, max(node.room))
        up = not free and node.parent >= 0
        return room, up, not free and self._may_end()

    def place(self) -> tuple[int, int]:
        """Where it stands, for the decoder: the token that opened the current motif, the rule."""
        if self.current < 0:
            return 0, 0
        room = self.rule()[0]
        return self.nodes[self.current].token, room + 2

    def mask(self) -> Tensor:
        """Which tokens may follow, bool V."""
        room, up, end = self.rule()
        if room == -1:
            return self.grammar.roots_in[self._within()].clone()
        if room == -2:
            allowed = torch.zeros(len(self.grammar), dtype=torch.bool)
            allowed[self.attachments()] = True
            return allowed
        allowed = self.grammar.children[room, self._within()].clone()
        allowed[0], allowed[1] = end, up
        return allowed

    def _within(self) -> int:
        return min(max(0, self.budget), self.grammar.largest)

    def attachments(self) -> list[int]:
        """The `@` tokens of the atoms that can take the pending child."""
        room, bond = self.nodes[self.current].room, self.grammar.tokens[self.pending].bond
        return [self.grammar.at[place] for place, left in enumerate(room) if left >= bond]

    def push(self, number: int) -> None:
        """Take a token that `mask` allows."""
        token = self.grammar.tokens[number]
        self._rule = None
        if token.kind == "root":
            self._open(number, parent=-1, at=0)
        elif token.kind == "child":
            if not self.nodes[self.current].block.single:
                self.pending = number
                return
            self._open(number, parent=self.current, at=0)
        elif token.kind == "at":
            waiting, self.pending = self.pending, 0
            self._open(waiting, parent=self.current, at=token.entry)
        elif token.kind == "up":
            self.current = self.nodes[self.current].parent
        else:
            self.done = True
            return
        while self.current >= 0 and not any(self.nodes[self.current].room):
            self.current = self.nodes[self.current].parent
        self.done = self.current < 0

    def tree(self) -> Node:
        """The molecule so far."""
        built: dict[int, Node] = {}
        for number in reversed(range(len(self.nodes))):
            node = self.nodes[number]
            children = tuple(built.pop(child) for child in node.children)
            built[number] = Node(node.block.smiles, node.bond, node.entry, node.at, children)
        return built[0]

    def _open(self, number: int, *, parent: int, at: int) -> None:
        token = self.grammar.tokens[number]
        block = self.grammar.motifs[token.motif]
        room = list(block.room)
        self.budget -= len(block)
        if parent >= 0:
            self.nodes[parent].room[at] -= token.bond
            self.nodes[parent].look()
            self.nodes[parent].children.append(len(self.nodes))
            room[token.entry] -= token.bond
        node = _Open(block, room, parent, token.bond, token.entry, at, number)
        node.look()
        self.nodes.append(node)
        self.current = len(self.nodes) - 1

    def _may_end(self) -> bool:
        place = self.nodes[self.current].parent
        while place >= 0:
            if self.nodes[place].obliged:
                return False
            place = self.nodes[place].parent
        return True


def grown(
    states: list[State], written: Iterable[Written]
) -> tuple[list[State], dict[Written, int], dict[Written, Node]]:
    """What becomes of states when tokens are written; each token once, however often it comes.

    Returns:
        The states that have not ended, which of them is whose, and the trees of those that have.
    """
    distinct = dict.fromkeys(written)
    last = dict(tuple(distinct))  # a state's last token needs no copy of it
    going: list[State] = []
    places: dict[Written, int] = {}
    trees: dict[Written, Node] = {}
    for one in distinct:
        own, number = one
        state = states[own] if last[own] == number else states[own].copy()
        state.push(number)
        if state.done:
            trees[one] = state.tree()
        else:
            places[one] = len(going)
            going.append(state)
    return going, places, trees
