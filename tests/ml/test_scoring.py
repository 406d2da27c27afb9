"""Scores from gates."""

import pytest

from guard.core.progress import span
from guard.ml.scoring import half_at, least_score


def test_a_score_is_a_half_exactly_where_the_weakest_number_is_at_its_gate() -> None:
    strong = {"p": (1e-9, 0.01), "fold": (8.0, 2.0), "rate": (1.0, 0.8)}

    assert least_score(**strong) == 1.0
    assert least_score(**{**strong, "p": (0.01, 0.01)}) == pytest.approx(0.5)
    assert least_score(**{**strong, "fold": (2.0, 2.0)}) == pytest.approx(0.5)
    assert least_score(**{**strong, "rate": (0.8, 0.8)}) == pytest.approx(0.5)
    assert least_score(**{**strong, "rate": (0.79, 0.8)}) < 0.5
    assert least_score(**{**strong, "p": (0.011, 0.01)}) < 0.5
    assert least_score(p=(0.0, 0.01), fold=(0.0, 2.0), rate=(1.0, 0.8)) == 0.0


def test_half_at_is_linear_and_clipped() -> None:
    assert [half_at(value, 2.0, 4.0) for value in (-9.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0)] == [
        0.0,
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
    ]


def test_a_span_fills_its_part_of_a_progress() -> None:
    told: list[tuple[float, str]] = []
    part = span(lambda done, note="": told.append((done, note)), 0.2, 0.6, "searching")

    part(0.0)
    part(0.5)
    part(1.0)

    assert [done for done, _ in told] == pytest.approx([0.2, 0.4, 0.6])
    assert {note for _, note in told} == {"searching"}
