"""Text to numbers: the longest pieces of a fixed vocabulary, as they stand in a text.

Texts are normalised (NFKC, lower case, single spaces) and cut from left to right; a character that
begins no piece becomes one `unknown`. This stands in place of an uploader's tokenizer file.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from guard.core.errors import InputError, ManifestRejected
from guard.core.text import printable

PAD, UNKNOWN = 0, 1  # numbers; the first piece of the vocabulary is 2
SPECIAL = 2
MAX_PIECES = 50_000
MAX_PIECE = 40  # characters
MAX_TEXT = 2000  # characters of a prompt
MOSTLY = 0.8
_UNIT = re.compile(r" ?[a-z]+| ?[0-9]+| ?[^a-z0-9 ]| ")


class Pieces:
    """A checked vocabulary of pieces.

    Raises:
        ManifestRejected: a piece is repeated, empty, too long or not normalised.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        if not 0 < len(pieces) <= MAX_PIECES:
            raise _refuse("bad_vocabulary", f"pieces must be 1..{MAX_PIECES} strings")
        self.index: dict[str, int] = {}
        for number, piece in enumerate(pieces):
            if not 0 < len(piece) <= MAX_PIECE:
                raise _refuse("bad_vocabulary", f"piece {number} has not 1..{MAX_PIECE} characters")
            if piece in self.index:
                raise _refuse("repeated_entry", f"the piece {printable(piece)!r} is repeated")
            if _folded(piece) != piece or not piece.isprintable():
                raise _refuse("bad_vocabulary", f"the piece {printable(piece)!r} is not normalised")
            self.index[piece] = SPECIAL + number
        self.names = tuple(pieces)
        #: the lengths of the pieces that begin with these two characters, the longest first
        self.lengths: dict[str, tuple[int, ...]] = {}
        found: dict[str, set[int]] = {}
        for piece in pieces:
            found.setdefault(piece[:2], {1}).add(len(piece))
        for start, lengths in found.items():
            self.lengths[start] = tuple(sorted(lengths, reverse=True))

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown among them."""
        return SPECIAL + len(self.names)

    def numbers(self, text: str) -> list[int]:
        """The pieces of one text; an empty list for a blank one.

        Raises:
            InputError: `prompt_too_long`, `prompt_control` (control characters, lone surrogates).
        """
        text = normalised(text)
        found: list[int] = []
        place = 0
        while place < len(text):
            for length in self.lengths.get(text[place : place + 2], (1,)):
                number = self.index.get(text[place : place + length])
                if number is not None:
                    break
            else:
                number, length = UNKNOWN, 1
            found.append(number)
            place += length
        return found

    def batch(self, texts: Sequence[str], most: int) -> Tensor:
        """The pieces of several texts, int64 N,L with L <= `most`; longer texts are cut."""
        rows = [self.numbers(text)[:most] for text in texts]
        width = max(1, max(map(len, rows), default=1))
        padded = [row + [PAD] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), width)


def normalised(text: str) -> str:
    """A prompt as the model sees it: one leading space, then words with single spaces."""
    if len(text) > MAX_TEXT:
        raise InputError(f"The text has more than {MAX_TEXT} characters.", code="prompt_too_long")
    for char in text if not text.isprintable() else "":
        if unicodedata.category(char) in {"Cc", "Cs"} and char not in "\t\n":
            raise InputError(
                f"The text has a control character or lone surrogate, {printable(char)}.",
                code="prompt_control",
            )
    folded = " ".join(_folded(text).split())
    return f" {folded}" if folded else ""


def learn(texts: Iterable[str], size: int) -> tuple[str, ...]:
    """A vocabulary of `size` pieces from captions: printable ASCII, then what shortens texts most.

    Candidates are words and numbers with their leading space, and parts of words that occur in
    several words; each counts for the characters that it saves. One that is mostly part of the same
    longer piece is left out.
    """
    units: Counter[str] = Counter()
    for text in texts:
        units.update(_UNIT.findall(normalised(text)))
    units = Counter({unit: math.isqrt(count) for unit, count in units.items()})
    base = [chr(code) for code in range(32, 127) if not chr(code).isupper()]
    found: Counter[str] = Counter()
    for unit, count in units.items():
        for start in range(len(unit)):
            for stop in range(start + 2, min(len(unit), start + 12) + 1):
                found[unit[start:stop]] += count
    swallowed = {
        part
        for piece, count in found.items()
        for part in (piece[1:], piece[:-1])
        if count > MOSTLY * found.get(part, 0)
    }
    gain = {
        piece: count * (len(piece) - 1) for piece, count in found.items() if piece not in swallowed
    }
    ranked = sorted(gain.items(), key=lambda item: (-item[1], item[0]))
    chosen = [piece for piece, _ in ranked[: max(0, size - len(base))]]
    return tuple(base + chosen)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _refuse(code: str, what: str) -> ManifestRejected:
    return ManifestRejected(f"config.json: {what}.", code=f"manifest_{code}")
