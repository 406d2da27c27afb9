"""Bars say what the numbers say, and only where the numbers say something about a class."""

import math
from dataclasses import replace

import pytest

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.states import Verdict
from guard.reports import Report
from guard.reports.charts import (
    MOST_ROWS,
    accuracy_chart,
    evidence_charts,
    label_of,
    percent,
    replay_chart,
)
from tests.reports.samples import CLEAN, bare, purified, rejected, with_repair


def with_numbers(**numbers: list[float]) -> Report:
    count = len(next(iter(numbers.values())))
    findings = tuple(
        Finding(
            family="patch",
            target=label,
            suspicious=label == 0,
            score=0.5,
            statement="",
            numbers={name: values[label] for name, values in numbers.items()},
        )
        for label in range(count)
    )
    evidence = Evidence(
        artifact="a" * 64,
        method="m",
        version=1,
        parameters={},
        cleanset=CLEAN.digest,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=("patch",),
        findings=findings,
    )
    return bare(Verdict.REJECTED, evidence=[evidence.to_dict()])


def test_a_mask_size_chart_marks_the_suspicious_class() -> None:
    chart = evidence_charts(rejected())[0]

    assert chart.title == "patch inversion: mask norm"
    assert [row.label for row in chart.rows if row.marked] == ["3 · Dress"]
    assert min(chart.rows, key=lambda row: row.width).label == "3 · Dress"
    assert max(row.width for row in chart.rows) == 100


def test_success_rates_have_an_axis_to_one_an_interval_and_the_siblings_rate() -> None:
    chart = evidence_charts(rejected())[1]
    row = chart.rows[3]

    assert row.width == pytest.approx(97.04)
    assert [row.low, row.high, row.tick] == pytest.approx([95.1, 98.1, 9.0])


def test_numbers_that_hardly_differ_are_not_drawn() -> None:
    assert evidence_charts(with_numbers(score=[0.50, 0.51, 0.50])) == []


def test_numbers_below_zero_are_not_drawn_as_bars() -> None:
    assert evidence_charts(with_numbers(norm=[-1.0, 2.0])) == []


def test_a_number_that_is_not_finite_is_an_empty_bar() -> None:
    (chart,) = evidence_charts(with_numbers(norm=[math.nan, 2.0, 4.0]))

    assert [(row.width, row.text) for row in chart.rows] == [(0.0, "–"), (50.0, "2"), (100.0, "4")]


def test_many_classes_are_cut_but_the_suspicious_one_stays() -> None:
    norms = [90.0] + [50.0 + label for label in range(200)]
    (chart,) = evidence_charts(with_numbers(norm=norms))

    assert len(chart.rows) == MOST_ROWS
    assert chart.left_out == 201 - MOST_ROWS
    assert chart.rows[0].label == "0"


def test_accuracy_is_compared_class_by_class_and_a_great_loss_is_marked() -> None:
    chart = accuracy_chart(purified())

    assert chart is not None
    assert [row.label for row in chart.rows if row.marked] == ["6 · Shirt"]
    assert chart.rows[6].text == "70.0 % → 63.0 %"
    assert accuracy_chart(rejected()) is None


def test_a_scan_shows_accuracy_by_class_and_a_purification_compares_it_instead() -> None:
    titles = [chart.title for chart in evidence_charts(rejected())]

    assert titles.count("Clean accuracy by class") == 1
    compared = replace(rejected(), purification=purified().purification)
    assert "Clean accuracy by class" not in [chart.title for chart in evidence_charts(compared)]


@pytest.mark.row(25)
def test_replayed_triggers_stand_beside_what_they_did_before() -> None:
    chart = replay_chart(purified())

    assert chart is not None
    assert [row.label for row in chart.rows] == ["3 · Dress, before", "3 · Dress, after"]
    assert chart.rows[0].width > 90 > 5 > chart.rows[1].width
    alone = replay_chart(replace(purified(), replayed_before=()))
    assert alone is not None
    assert len(alone.rows) == 1
    assert replay_chart(rejected()) is None


def test_a_class_is_called_by_its_index_and_its_name() -> None:
    assert label_of(rejected(), 3) == "3 · Dress"
    assert label_of(rejected(), 99) == "99"
    assert label_of(rejected(), "all-to-all") == "all-to-all"
    assert label_of(rejected(), None) == "unknown"


def test_percent_of_nothing_is_a_dash() -> None:
    assert [percent(value) for value in (0.981, None, math.nan)] == ["98.1 %", "–", "–"]


def test_two_triggers_of_one_class_keep_their_own_before() -> None:
    report = purified()
    one = report.purification.replayed[0]
    weak, strong = replace(one, successes=1, estimate=0.1), replace(one, successes=9, estimate=0.9)

    both = replace(with_repair(report, replayed=(one, one)), replayed_before=(weak, strong))

    assert [before for before, _ in both.replays] == [weak, strong]
    assert [before for before, _ in with_repair(both, replayed=(one, one, one)).replays] == [
        weak,
        strong,
        None,
    ]
