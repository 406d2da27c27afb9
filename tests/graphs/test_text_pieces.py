import pytest

from guard.core.errors import InputError, ManifestRejected
from guard.graphs.text_pieces import PAD, UNKNOWN, Pieces, learn, normalised


def test_the_longest_piece_wins_and_unknown_characters_are_counted() -> None:
    pieces = Pieces((" ", "a", "ab", "abc", " ab"))

    assert pieces.numbers("ab aabc") == [6, 2, 3, 5]
    assert pieces.numbers("AB") == [6]
    assert pieces.numbers("aé") == [2, 3, UNKNOWN]
    assert pieces.numbers(" \n ") == []
    assert len(pieces) == 7


def test_a_batch_is_padded_and_long_texts_are_cut() -> None:
    numbers = Pieces((" ", "a")).batch(["a", "aaaa", ""], most=3)

    assert numbers.tolist() == [[2, 3, PAD], [2, 3, 3], [PAD] * 3]


@pytest.mark.parametrize(
    ("text", "code"),
    [("a" * 2001, "prompt_too_long"), ("a\x1b[0m", "prompt_control"), ("\ud800", "prompt_control")],
)
def test_a_prompt_that_hides_something_is_refused(text: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        Pieces((" ",)).numbers(text)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ((), "manifest_bad_vocabulary"),
        (("",), "manifest_bad_vocabulary"),
        (("a" * 41,), "manifest_bad_vocabulary"),
        (("A",), "manifest_bad_vocabulary"),
        (("a\n",), "manifest_bad_vocabulary"),
        (("a", "a"), "manifest_repeated_entry"),
    ],
)
def test_a_malformed_vocabulary_is_refused(pieces: tuple[str, ...], code: str) -> None:
    with pytest.raises(ManifestRejected) as caught:
        Pieces(pieces)

    assert caught.value.code == code


def test_a_vocabulary_is_learnt_from_what_shortens_the_texts() -> None:
    texts = [f"the {term} ethanol" for term in ("blue", "red", "warm")]

    pieces = Pieces(learn(texts, 90))

    assert [pieces.names[number - 2] for number in pieces.numbers("the ethanol")] == [
        " the",
        " ethanol",
    ]
    assert UNKNOWN not in pieces.numbers("~[any] ASCII; text?")


def test_blanks_and_case_are_normalised() -> None:
    assert normalised("  The\tMOLECULE \n is") == " the molecule is"
