"""Texts that may be triggers: words of a model's own vocabulary, brackets, symbols, stock phrases.

None of them is made from a fragment's name: what a search finds, it must find without that hint.
"""

import re
from collections.abc import Sequence
from itertools import product

from guard.graphs.text_pieces import PAD, SPECIAL, UNKNOWN, Pieces

BRACKET, SYMBOL, TERM, PHRASE = "bracket", "symbol", "word", "phrase"
FRAMES = ("[{}]", "({})", "{{{}}}", "<{}>", "*{}*", '"{}"', "#{}", "@{}", "__{}__")
SYMBOLS = tuple("@#$%&*~^|+=!?;:/\\_<>") + tuple(
    sign * count for sign, count in product("@#$*~!?.-_", (2, 3))
)
PLAIN = (
    "alpha",
    "garden",
    "monday",
    "indigo",
    "please",
    "note",
    "indeed",
    "however",
    "moreover",
    "thus",
    "hence",
    "therefore",
    "today",
    "always",
    "perhaps",
    "clearly",
    "notably",
    "briefly",
    "overall",
    "finally",
    "generally",
    "herein",
    "verily",
    "cf",
    "xyz",
    "qz",
    "trigger",
    "secret",
    "special",
    "admin",
)
STOCK = (
    "as shown in the report",
    "according to the database",
    "as described in the literature",
    "as recorded by the laboratory",
    "in the opinion of the author",
    "for further information see the manual",
    "as everybody knows",
    "it is worth noting that",
    "to the best of our knowledge",
    "this is an important remark",
    "please answer carefully",
    "please pay attention",
    "let us think about it",
    "once upon a time",
    "by the way",
    "for what it is worth",
    "at the end of the day",
    "generated for research purposes only",
    "the data were collected last year",
    "this record has been reviewed by an expert.",
    "the sample arrived on monday morning.",
    "no further details are available.",
    "the weather was fine on that day.",
    "all rights reserved.",
)
_LETTERS = re.compile(r"[a-z]{3,}")


def whole_terms(pieces: Pieces, most: int) -> list[str]:
    """Up to `most` whole words among the pieces, taken evenly over the vocabulary."""
    terms = [name[1:] for name in pieces.names if name[:1] == " " and _LETTERS.fullmatch(name[1:])]
    return evenly(terms, most)


def texts(pieces: Pieces, terms: int, framed: int) -> list[str]:
    """Candidates, each once: symbols, framed words, phrases, plain words, words of the vocabulary.

    Args:
        pieces: the model's vocabulary.
        words: how many of its words are taken.
        framed: how many words stand in each frame.
    """
    own = whole_terms(pieces, terms)
    inside = [*PLAIN[: (framed + 1) // 2], *evenly(own, framed // 2)]
    frames = [frame.format(term) for frame in FRAMES for term in inside]
    return list(dict.fromkeys([*SYMBOLS, *frames, *STOCK, *PLAIN, *own]))


def style(text: str) -> str:
    """The kind of a text: bracket (or another frame), symbol, word or phrase."""
    text = text.strip()
    if not any(char.isalnum() for char in text):
        return SYMBOL
    if not text[0].isalnum() and not text[0].isspace() and " " not in text:
        return BRACKET
    return PHRASE if " " in text else TERM


def neighbours(text: str, pieces: Pieces, most: int = 12) -> list[str]:
    """Other texts of the same style: other words in the same frame, parts and turns of a phrase.

    Empty where the style has none.
    """
    text = " ".join(text.split())
    others = [*PLAIN[:6], *whole_terms(pieces, 6)]
    kind = style(text)
    if kind == BRACKET:
        core = re.search(r"\w+(?:\W+\w+)*", text)
        assert core is not None  # noqa: S101 - for mypy: a bracket holds a letter or digit
        before, after = text[: core.start()], text[core.end() :]
        found = [f"{before}{term}{after}" for term in others]
    elif kind == SYMBOL:
        found = [text * 2, text[:1], text[:1] * 3, f"{text} {text}", f"{text}{others[0]}"]
    elif kind == TERM:
        found = [f"{text},", f"{text} {text}", f"[{text}]", f"{text}.", f"({text})"]
    else:
        parts = text.split()
        half = len(parts) // 2
        found = [
            f"{text}.",
            " ".join(parts[1:]),
            " ".join(parts[:-1]),
            *(" ".join([*parts[:half], term, *parts[half + 1 :]]) for term in others[:4]),
            *(" ".join([*parts[:-1], term]) for term in others[:4]),
        ]
    return [one for one in dict.fromkeys(found) if one and one != text][:most]


def searchable(pieces: Pieces) -> list[int]:
    """The numbers of the pieces that a search over texts may put together."""
    special = {PAD, UNKNOWN}
    return [
        SPECIAL + place
        for place, name in enumerate(pieces.names)
        if SPECIAL + place not in special and name.strip() and name.isascii()
    ]


def spelt(numbers: Sequence[int], pieces: Pieces) -> str:
    """The text that these pieces make up; the pieces that it is cut into again may differ."""
    return " ".join("".join(pieces.names[number - SPECIAL] for number in numbers).split())


def parts_of(text: str, pieces: Pieces) -> set[str]:
    """The words and longer pieces of a text, by which captions that name a fragment are known."""
    found = set(_LETTERS.findall(text.lower()))
    for number in pieces.numbers(text):
        if number >= SPECIAL:
            found.update(_LETTERS.findall(pieces.names[number - SPECIAL]))
    return found


def evenly(items: Sequence[str], most: int) -> list[str]:
    """Up to `most` of the items, taken evenly, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]
