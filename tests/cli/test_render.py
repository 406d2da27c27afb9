"""Tables for people: complete, and deaf to markup and control characters in names."""

import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from guard.cli._render import print_report, print_table
from guard.core.purification import UniversalTransfer
from guard.core.states import GateMode, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.reports import Report
from guard.reports.html import render_html
from tests.reports.samples import (
    MODEL,
    bare,
    estimate,
    purified,
    rejected,
    retrained,
    sifted,
    with_facts,
    with_repair,
)

Capture = pytest.CaptureFixture[str]


def printed(report: Report, capsys: Capture) -> str:
    print_report(report, width=140)
    return capsys.readouterr().out


def test_a_rejected_model_says_what_was_found(capsys: Capture) -> None:
    text = printed(rejected(), capsys)

    for part in (
        "REJECTED",
        "fashion-resnet18",
        "a" * 64,
        "upper bound is 98.1 %",
        "target class 3 · Dress",
        "97.0 % (95.1 % to 98.1 %)",
        "covered: patch",
        "not covered: blend",
        "patch_inversion",
        "could not look",
        "It ran out of its time budget.",
    ):
        assert part in text, part


def test_a_calibrated_score_and_the_overall_bound_are_named(capsys: Capture) -> None:
    text = printed(with_facts(rejected(), asr_upper=0.993, calibration="c" * 64), capsys)

    assert "probability of a backdoor" in text
    assert "all triggers at once at most 99.3 %" in text


def test_a_natural_trigger_is_no_attack_success_rate(capsys: Capture) -> None:
    report = with_facts(bare(Verdict.CLEARED), natural_trigger=estimate(3, 524, 0.951, 0.981))

    shown, page = printed(report, capsys), render_html(report)
    assert "nothing accused (the most unusual natural trigger has 97.0" in shown
    assert "attack success rate" not in shown
    assert "nothing is accused; a natural trigger, as every model has, reaches 97.0" in page


def test_a_network_that_was_trained_anew_is_compared_with_the_one_before(capsys: Capture) -> None:
    text, page = printed(retrained(), capsys), render_html(retrained())

    for part in (
        "97.0 %",
        "96.0 %",
        "accused images of class 3",
        "5000 images, of which the sift accused 250 (75 of them kept for the proof)",
        "control_accuracy 0.955, psnr 21.5",
        "not measured: 7 images are too few.",
        "epochs=30",
        "3" * 64,
    ):
        assert part in text, part
        assert part in page, part
    assert "retrained by trap_and_replace" in text
    assert "Trained anew by trap_and_replace" in page


def test_known_gaps_stand_below_what_is_not_covered(capsys: Capture) -> None:
    gaps = {"measured": False, "sentence": "Nothing was \x1b measured."}
    text = printed(with_facts(rejected(), known_gaps=gaps), capsys)

    assert text.index("not covered: blend") < text.index("Nothing was \\x1b measured.")


def test_a_purified_model_shows_before_and_after(capsys: Capture) -> None:
    text = printed(purified(), capsys)

    for part in (
        "PURIFIED",
        "purified by sau",
        "89.6 %",
        "88.3 %",
        "trigger to class 3 · Dress",
        "97.0 % (",
        "2.6 % (",
        "with norm=linf, rho=0.2",
        "fresh patches to class 3 · Dress",
        "5.0 % (3.5 %",
        "81.0 % after 2 steps, random triggers at 22.0 % (largest lead 59 points",
        "in the mean of 2 draws",
        "not measured: The trigger",
    ):
        assert part in text, part


def test_accused_training_images_have_rows_before_and_after(capsys: Capture) -> None:
    text = " ".join(printed(sifted(), capsys).split())

    assert "accused images of class 3 · Dress" in text
    assert "trigger estimated from them, to class 3 · Dress" in text
    assert "1.7 % (0.9 % to 3.0 %)" in text


def test_fresh_patches_of_new_searches_say_so(capsys: Capture) -> None:
    report = purified()
    searched = tuple(replace(one, searches=8) for one in report.purification.resampled)

    assert "3 · Dress (8 new searches)" in " ".join(
        printed(with_repair(report, resampled=searched), capsys).split()
    )


def test_candidates_are_listed_with_the_first_reason_and_their_time(capsys: Capture) -> None:
    tried: list[dict[str, Any]] = [
        {"defense": "first", "failed": "No patch.", "seconds": 75.04},
        {
            "defense": "second",
            "verdict": "rejected",
            "reasons": ["Too weak.", "Too slow."],
            "seconds": 2.0,
        },
        {"defense": "third", "verdict": None},
    ]
    lines = [
        line.split() for line in printed(replace(rejected(), candidates=tried), capsys).splitlines()
    ]

    assert ["first", "failed", "75.0", "No", "patch."] in lines
    assert ["second", "rejected", "2.0", "Too", "weak.", "(and", "1", "more)"] in lines
    assert ["third", "not", "judged", "yet", "–"] in lines


def test_defenses_one_after_the_other_are_all_named(capsys: Capture) -> None:
    report = replace(
        with_repair(purified(), after=("shared_distillation",)),
        candidates=[
            {
                "defense": "sau",
                "after": ["shared_distillation"],
                "digest": "b" * 64,
                "verdict": "purified",
            }
        ],
    )
    text = printed(report, capsys)

    assert "purified by shared_distillation, then sau" in text
    assert text.count("shared_distillation, then sau") == 2
    assert render_html(report).count("<code>shared_distillation, then sau</code>") == 2


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_can_be_shown_with_nothing_known(verdict: Verdict, capsys: Capture) -> None:
    text = printed(bare(verdict), capsys)

    assert str(verdict).upper() in text
    assert "not measured" in text


def test_names_are_neither_markup_nor_control_sequences(capsys: Capture) -> None:
    name = "[red]x[/red] :bomb: \x1b[31m\u202e"
    report = replace(
        with_facts(rejected(), reasons=(name,)),
        name=name,
        manifest=replace(MODEL, label_names=(name,) * 10),
        candidates=[{"defense": name, "failed": name}],
    )
    text = printed(report, capsys)

    assert "[red]x[/red] :bomb: \\x1b[31m\\u202e" in text
    assert not set(text) & {"\x1b", "\u202e"}


def test_a_table_without_rows_is_a_word(capsys: Capture) -> None:
    print_table(("a", "b"), [], empty="nothing is served")

    assert capsys.readouterr().out == "nothing is served\n"


def test_a_gate_that_only_warns_is_named_below_the_verdict(capsys: Capture) -> None:
    said = Gated(mode=GateMode.WARN, would_be=WouldBe.REJECTED)
    report = with_facts(rejected(), gate=said)

    text = printed(report, capsys)

    assert "an enforcing gate refuses this model (rejected)" in " ".join(text.split())
    assert report.exit_code == 1
    assert report.to_dict()["gate"] == {"mode": "warn", "would_be": "rejected"}
    assert rejected().to_dict()["gate"] is None


def test_no_cell_breaks_inside_a_name_where_there_is_room(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.cli._render.console", lambda: Console(width=70))
    names = ["patch_inversion", "shared_distillation", "2026-11-30"]

    print_table(("one", "two", "since", "why"), [[*names, "a long sentence of many parts " * 5]])

    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert max(map(len, shown.splitlines())) <= 70
    counts = ("place", ">classes", ">images", ">skipped", "digest")
    print_table(counts, [["/" + "p" * 90, 3, 30, 0, "9ee6bf77471be9be"]])
    assert "9ee6bf77471be9be" in capsys.readouterr().out
    print_table(("digest", "why"), [["f" * 64, "w" * 40]])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 70


def test_no_cell_of_a_page_breaks_inside_a_name() -> None:
    page = render_html(rejected())

    cells = re.search(r"\ntd \{([^}]*)\}", page)
    assert cells is not None
    assert "overflow-wrap: break-word" in cells[1]
    assert "td code { overflow-wrap: break-word; }" in page


def test_a_blind_repair_states_what_remains_of_universal_perturbations(capsys: Capture) -> None:
    report = purified()
    assert report.purification is not None
    found = UniversalTransfer(kind="waves", classes=10, worked=9, kept=2)
    report = replace(
        report, purification=replace(report.purification, blind=True, universal=(found,))
    )

    text, page = " ".join(printed(report, capsys).split()), render_html(report)

    for part in ("(waves)", "for 9 of 10 classes; 2 of these still work on this copy"):
        assert part in text
        assert part in page
