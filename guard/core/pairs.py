"""Pairs of a text and a molecule in memory: the clean data of text-to-graph models.

Methods get `CleanPairs`; only the measuring code of the guard gets `CuratedPairs`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from guard.core.evidence import PairSetFacts


@dataclass(frozen=True)
class Pairs:
    """Descriptions and the canonical SMILES of the molecules that they describe, in one order."""

    texts: tuple[str, ...]
    smiles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, places: Iterable[int]) -> "Pairs":
        """The pairs at these places."""
        chosen = list(places)
        return Pairs(
            tuple(self.texts[place] for place in chosen),
            tuple(self.smiles[place] for place in chosen),
        )


@dataclass(frozen=True)
class CleanPairs:
    """What a method may see: the search and calibration parts. There is no hold-out here."""

    name: str
    digest: str
    search: Pairs
    calibration: Pairs

    def together(self) -> Pairs:
        """Both parts as one, for a method that makes no choice on the calibration part."""
        return Pairs(
            self.search.texts + self.calibration.texts, self.search.smiles + self.calibration.smiles
        )


@dataclass(frozen=True)
class CuratedPairs:
    """A stored pair set with all three parts; never handed to a method."""

    facts: PairSetFacts
    search: Pairs
    calibration: Pairs
    holdout: Pairs

    def visible(self) -> CleanPairs:
        """The part that methods may see."""
        return CleanPairs(self.facts.name, self.facts.digest, self.search, self.calibration)

    @classmethod
    def from_parts(cls, facts: PairSetFacts, pairs: Pairs, split: Iterable[int]) -> "CuratedPairs":
        """Split pairs into the three parts by `split`: 0 search, 1 calibration, 2 hold-out."""
        places: list[list[int]] = [[], [], []]
        for place, code in enumerate(split):
            places[code].append(place)
        return cls(facts, *(pairs.pick(part) for part in places))
