"""Candidate texts, their styles and neighbours."""

import pytest

from guard.graphs import wording
from guard.graphs.text_pieces import Pieces

PIECES = Pieces((" the", " mole", "cule", " amide", " sulfur", "thio", "a", "b", "[", "]"))


def test_candidates_are_of_all_kinds_and_none_is_repeated() -> None:
    found = wording.texts(PIECES, 2, 2)

    assert len(found) == len(set(found))
    assert {wording.style(text) for text in found} == {"bracket", "symbol", "word", "phrase"}
    assert "amide" in found
    assert "thio" not in found  # no whole word


@pytest.mark.parametrize(
    ("text", "style", "alike"),
    [
        ("[secret]", "bracket", "[garden]"),
        ("@@", "symbol", "@@@@"),
        ("verily", "word", "[verily]"),
        ("as written in the book", "phrase", "written in the book"),
    ],
)
def test_neighbours_are_of_the_same_style(text: str, style: str, alike: str) -> None:
    assert wording.style(text) == style
    assert alike in wording.neighbours(text, PIECES)
    assert text not in wording.neighbours(text, PIECES)


def test_pieces_are_put_together_to_a_text_and_a_text_is_taken_apart() -> None:
    numbers = PIECES.numbers("amide thio")

    assert wording.spelt(numbers, PIECES).startswith("amide")
    assert {"amide", "thio"} <= wording.parts_of("amide thio", PIECES)
    assert all(PIECES.names[number - 2].strip() for number in wording.searchable(PIECES))


def test_items_are_taken_evenly() -> None:
    assert wording.evenly(list("abcdef"), 3) == ["a", "c", "e"]
    assert wording.evenly(["a"], 3) == ["a"]
