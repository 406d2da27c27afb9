"""Text from strangers can steer neither a terminal nor the eye."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.text import printable


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mcleared", "\\x1b[2J\\x1b[31mcleared"),
        ("a\r\nverdict: cleared", "a\\x0d\\x0averdict: cleared"),
        ("nul\x00", "nul\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("rejected \u202egnp.exe", "rejected \\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("line\u2028break", "line\\u2028break"),
        ("lone \ud800", "lone \\ud800"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_hidden_characters_become_visible(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_ordinary_text_of_any_language_is_left_alone() -> None:
    assert printable("Größe 大小 «95 %» é") == "Größe 大小 «95 %» é"


def test_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * 50, limit=10) == "x" * 9 + "…"


@given(st.text())
def test_nothing_hidden_is_ever_left(text: str) -> None:
    left = {unicodedata.category(char) for char in printable(text)}

    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
