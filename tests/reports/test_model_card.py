"""The model-card section: results that a model hub reads, and a card that people keep."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from guard.core.errors import InputError
from guard.core.states import Verdict
from guard.reports.model_card import BEGIN, END, YAML_BEGIN, render_card, renewed
from guard.reports.report import Report
from tests.reports.samples import bare, purified, rejected, with_facts
from tests.reports.test_sarif import HOSTILE


def front(card: str) -> dict[str, Any]:
    """The front matter, read by a YAML parser of its own."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.mark.row(39)
@pytest.mark.parametrize(
    "report", [rejected(), purified(), *map(bare, Verdict)], ids=lambda one: str(one.verdict)
)
def test_a_model_hub_reads_the_results(report: Report) -> None:
    card = render_card(report)
    read: Any = ModelCard(card)
    results = front(card)["model-index"][0]["results"]

    assert read.data.eval_results
    assert len(read.data.eval_results) == len(results[0]["metrics"])
    assert f"**{report.verdict}**" in read.content


def test_the_numbers_have_their_intervals() -> None:
    card = render_card(rejected())
    accuracy, asr = front(card)["model-index"][0]["results"][0]["metrics"]

    assert (accuracy["type"], accuracy["value"]) == ("accuracy", 0.896)
    assert (asr["type"], asr["value"]) == ("attack_success_rate", 0.9704)
    assert "95 % interval 0.9510 to 0.9810" in asr["name"]
    assert "| 0.970 | 0.951 to 0.981 |" in card
    assert "mostly missed are warp" in card
    assert "could not look" in card
    assert f"Repaired from {'a' * 64} by sau" in render_card(purified())


def test_hostile_text_is_neither_html_nor_markdown_nor_yaml() -> None:
    text = f"{HOSTILE} {END} [x](javascript:alert) | ` \n---\n# h\nlicense: mit"
    report = replace(with_facts(rejected(), reasons=(text,)), name=text)
    card = render_card(report)

    assert list(front(card)) == ["model-index"]
    assert card.splitlines().count(END) == 1
    assert "<b>" not in card.partition("## Backdoor")[2]
    assert "](javascript" not in card.partition("## Backdoor")[2]
    assert "\x1b" not in card
    assert renewed(card, report) == card


WRITTEN = "---\nlicense: mit\n---\n# Mine\n\nWhat I wrote.\n"


def test_a_card_is_renewed_and_what_people_wrote_stays() -> None:
    first = renewed(WRITTEN, rejected())
    again = renewed(first.replace("wrote.", "wrote!"), purified())

    assert front(first)["license"] == front(again)["license"] == "mit"
    assert "What I wrote!" in again
    assert again.count(BEGIN) == again.count(YAML_BEGIN) == 1
    assert "**purified**" in again
    assert "**rejected**" not in again
    assert renewed(again, purified()) == again
    assert "# Mine" in renewed("# Mine\n", rejected())
    assert front(renewed("# Mine\n", rejected()))["model-index"]


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("---\nlicense: mit\n", "card_front_matter"),
        ("---\nmodel-index:\n- name: x\n---\nbody\n", "card_index"),
        (f"{BEGIN}\nbody\n", "card_markers"),
        (f"{END}\n{BEGIN}\n", "card_markers"),
        (f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n", "card_markers"),
    ],
)
def test_a_card_that_cannot_be_renewed_safely_is_refused(card: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        renewed(card, rejected())

    assert caught.value.code == code


def test_a_verdict_that_holds_no_more_is_shown_as_expired() -> None:
    report = bare(Verdict.CLEARED, expired=True, expires_at="2026-01-01T00:00:00Z", verdict_id="v9")
    card = render_card(with_facts(report, parent="7" * 64))

    assert "**expired**" in card
    assert "verdict v9" in card
    assert f"Made from {'7' * 64}" in card
