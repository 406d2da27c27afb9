"""A report on a repaired model says first whether the repair holds."""

from dataclasses import replace

import pytest

from guard.cli._render import print_report
from guard.core.states import Verdict
from guard.reports.html import render_html
from guard.reports.repaired import repair_sentence
from tests.reports.samples import bare, purified, with_facts


def test_a_purified_models_page_says_first_that_the_repair_holds_then_shows_triggers() -> None:
    report = purified()
    page = render_html(report)
    places = [
        page.index("The repair holds: the uploaded model"),
        page.index('class="reasons"'),
        page.index("Before and after purification"),
        page.index("Class by class"),
    ]

    assert places == sorted(places)
    if report.triggers:
        assert page.index("Before and after purification") < page.index(
            "What a search finds on the repaired copy"
        )
    assert ">Recovered triggers<" not in page


def test_the_sentence_gives_the_rates_before_and_after() -> None:
    report = purified()
    (before, after), *_ = report.replays
    assert before is not None
    sentence = repair_sentence(report).replace("\u202f", " ").replace("\u00a0", " ")

    assert sentence.startswith("The repair holds: the uploaded model's triggers (")
    assert f"{100 * max(one.estimate for one, _ in report.replays if one):.1f}" in sentence
    assert f"{100 * after.estimate:.1f}" in sentence


def test_without_a_replay_it_rests_on_what_the_policy_asks() -> None:
    report = purified()
    assert report.purification is not None
    bare_repair = replace(report, purification=replace(report.purification, replayed=()))

    assert "all that the policy asks" in repair_sentence(bare_repair)


@pytest.mark.parametrize(
    ("verdict", "start"), [(Verdict.REJECTED, "The repair does not hold"), (Verdict.HELD, "")]
)
def test_a_repair_that_does_not_hold_is_not_said_to(verdict: Verdict, start: str) -> None:
    assert repair_sentence(with_facts(purified(), verdict=verdict))[: len(start) or None] == start


def test_neither_is_one_that_nobody_made_or_whose_verdict_has_ended() -> None:
    assert repair_sentence(bare(Verdict.CLEARED)) == ""
    assert repair_sentence(replace(purified(), expired=True)) == ""


def test_the_table_says_it_above_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(purified(), width=140)
    shown = capsys.readouterr().out

    assert shown.index("The repair holds") < shown.index("•")
    assert "attack success rate" not in shown.partition("covered:")[0]
