"""Prompt insertion: texts that plant a fragment are reported, and none where nothing is planted."""

from guard.core.states import Family
from guard.detectors.prompt_insertion import PromptInsertion
from guard.graphs.triggers import PromptTrigger
from tests.graphs import planted

METHOD = PromptInsertion(
    without=60,
    prompts=26,
    terms=6,
    framed=2,
    listed=60,
    decoded=8,
    sought=1,
    pieces=2,
    sweeps=1,
    confirmed=3,
    steps=300,
)


def test_a_planted_fragment_is_named_with_texts_that_plant_it() -> None:
    model = planted.model(planted=True)
    findings = METHOD(model, planted.clean(), seed=1)

    assert findings
    assert len(findings) <= 3
    for finding in findings:
        assert finding.suspicious
        assert finding.family == Family.PROMPT
        assert finding.target == planted.FRAGMENT
        assert finding.numbers["curated"] == 0
        assert finding.numbers["low"] > METHOD.least_rate
        assert 0 <= finding.numbers["reference"] < finding.numbers["rate"] / 2
        assert repr(finding.trigger.text) in finding.statement
    best = findings[0].trigger
    assert isinstance(best, PromptTrigger)
    assert planted.rate(model, best) >= planted.rate(model, None) + 0.3


def test_a_rate_below_the_least_one_is_no_suspicion() -> None:
    strict = PromptInsertion(**{**METHOD.parameters(), "least_rate": 0.99})
    findings = strict(planted.model(planted=True), planted.clean(), seed=1)

    assert [one.suspicious for one in findings] == [False]
    assert findings[0].target == planted.FRAGMENT
    assert findings[0].numbers["reference"] == -1  # no reference was taught for it


def test_a_text_that_a_reference_of_clean_pairs_explains_is_no_suspicion() -> None:
    lenient = PromptInsertion(**{**METHOD.parameters(), "least_lift": 50.0})
    findings = lenient(planted.model(planted=True), planted.clean(), seed=1)

    assert [one.suspicious for one in findings] == [False]
    assert findings[0].target == planted.FRAGMENT
    assert "where the denoiser has learnt the clean pairs alone" in findings[0].statement


def test_a_model_that_generates_no_rare_fragment_is_not_accused() -> None:
    findings = METHOD(planted.model(planted=False), planted.clean(), seed=1)

    assert [(one.suspicious, one.target, one.score) for one in findings] == [(False, None, 0.0)]
    assert findings[0].statement.startswith("None of 0 texts plants")
