"""The HTML page: complete, self-contained, and deaf to what strangers put into names."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from guard.core.states import Family, GateMode, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.reports import Answered, Report
from guard.reports.html import render_html
from tests.reports.samples import (
    GAPS,
    MODEL,
    NAMES,
    TARGET,
    bare,
    demonstration,
    harmless,
    purified,
    rejected,
    sifted,
    trigger,
    with_facts,
    with_repair,
)

HOSTILE = "<svg onload=alert(1)>\"'><script>alert(2)</script>"


class Page(HTMLParser):
    """All tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(report: Report) -> Page:
    return Page(render_html(report))


@pytest.mark.row(50)
def test_a_rejected_model_says_why_and_shows_the_trigger() -> None:
    page = page_of(rejected())

    for part in (
        "rejected",
        "fashion-resnet18",
        "a" * 64,
        "upper bound is 98.1 %",
        "3 · Dress",
        "97.0 %",
        "patch_inversion",
        "could not look",
        "It ran out of its time budget.",
        "38.2 s",
        "lr=0.1, steps=300",
        "d" * 64,
        "c" * 64,
        "524 of 540",
    ):
        assert part in page.text, part
    shown = [image["alt"] for image in page.named("img")]
    assert shown[:4] == ["What it adds", "Mask", "Pattern", "On a clean image"]


def test_a_calibrated_score_and_the_overall_bound_are_named() -> None:
    page = page_of(with_facts(rejected(), asr_upper=0.993, calibration="b" * 64))

    for part in (
        "Calibrated probability of a backdoor",
        "all triggers at once: at most 99.3 %",
        "SHA-256 of the calibration",
        "b" * 64,
    ):
        assert part in page.text, part


def test_other_classes_are_shown_small_to_compare_with() -> None:
    page = page_of(rejected())

    assert [image["alt"] for image in page.named("img")][4:] == [
        f"class {label} · {name}" for label, name in enumerate(NAMES) if label != TARGET
    ]
    assert "For comparison" in page.text
    assert len(page_of(replace(rejected(), triggers=[harmless(0)])).named("img")) == 1


def test_a_trigger_that_no_finding_speaks_of_is_shown_in_full() -> None:
    assert len(page_of(bare(Verdict.HELD, triggers=[trigger()])).named("img")) == 4


def test_what_is_not_covered_is_said() -> None:
    text = page_of(rejected()).text

    assert text.index("Not covered") < text.index("blend") < text.index("sample-specific")
    assert text.index("sample-specific") < text.index(str(GAPS["sentence"]))


def test_no_family_is_explained_as_any_trigger() -> None:
    """What covers `all-to-one` looks for signs of a class; many triggers leave none."""
    assert "any trigger" not in page_of(with_facts(rejected(), coverage=tuple(Family))).text


def test_a_purified_model_shows_before_and_after() -> None:
    text = page_of(purified()).text

    assert "Before and after purification" in text
    assert "70.0 % → 63.0 %" in text
    assert "3 · Dress, before" in text
    assert "Purified from " + "a" * 64 in text
    assert "Parameters of sau norm=linf, rho=0.2" in text


def test_a_purified_model_shows_its_proof() -> None:
    text = page_of(purified()).text

    assert "Fresh patches of the same kind" in text
    assert "Reactivating the trigger" in text
    assert "Shared adversarial examples" in text
    assert "5.0 % (3.5 % to 7.2 %)" in text
    assert "3 · Dress, 2 steps" in text
    assert "81.0 % (random: 22.0 %)" in text
    assert "Not measured: The trigger for class 5 is no patch" in text
    searched = tuple(replace(one, searches=8) for one in purified().purification.resampled)
    text = page_of(with_repair(purified(), resampled=searched)).text
    assert "3 · Dress, 8 new searches, before" in text


def test_accused_training_images_are_shown_before_and_after_the_repair() -> None:
    text = page_of(sifted()).text

    assert "Accused training images" in text
    assert "3 · Dress, estimated trigger, after" in text
    assert "1.7 % (0.9 % to 3.0 %)" in text
    assert "Accused training images" not in page_of(purified()).text


def test_the_parents_trigger_is_shown_on_images_with_both_models_answers() -> None:
    page = page_of(purified())

    shown = [image["alt"] for image in page.named("img")]
    assert shown == [
        f"class {label} with the trigger for 3 · Dress"
        for label in ("7 · Sneaker", "9 · Ankle boot")
    ]
    assert (
        "success rate 97.0 % (95.1 % to 98.1 %) before, 2.6 % (1.5 % to 4.3 %) after" in page.text
    )
    assert "7 · Sneaker before: ✗ 3 · Dress after: ✓ 7 · Sneaker" in page.text
    assert "9 · Ankle boot before: ✗ 3 · Dress after: ✗ 5 · Sandal" in page.text
    tones = [
        str(span["class"]).split()[0]
        for span in page.named("span")
        if "answer" in str(span.get("class"))
    ]
    assert tones == ["bad", "good", "bad", "warn"]


def test_a_trigger_that_was_not_measured_again_says_so() -> None:
    text = page_of(replace(purified(), demonstrations=[replace(demonstration(), after=None)])).text

    assert "before, not measured after" in text


def test_large_images_of_replays_stay_small() -> None:
    noise = np.random.default_rng(0).random((3, 224, 224))
    images = [
        Answered(image=noise, label=index, wanted=3, before=3, after=index) for index in range(6)
    ]

    page = render_html(
        replace(purified(), demonstrations=[replace(demonstration(), images=images)] * 4)
    )

    assert len(page) < 3_000_000


def test_candidates_are_listed_with_the_first_reason_and_their_time() -> None:
    tried: list[dict[str, Any]] = [
        {"defense": "a", "failed": "No patch.", "seconds": 75.0},
        {
            "defense": "b",
            "verdict": "rejected",
            "reasons": ["Too weak.", "Too slow."],
            "seconds": 2.0,
        },
        {"defense": "c", "after": ["b"], "verdict": "purified", "reasons": [], "acc_after": 0.9},
        {"defense": "d", "verdict": None},
    ]
    text = page_of(replace(rejected(), candidates=tried)).text

    assert (
        "a failed – 1 min 15 s No patch. b rejected – 2.0 s Too weak. (and 1 more) b, then c "
        "purified 90.0 %" in text
    )
    assert "d not judged yet" in text


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_a_page_even_with_nothing_known(verdict: Verdict) -> None:
    page = page_of(with_facts(bare(verdict), reasons=("Because.",)))

    assert f"{verdict} some-model" in page.text
    assert "Because." in page.text


def test_no_page_says_clean_or_safe_of_a_model() -> None:
    for verdict in Verdict:
        assert not re.search(r"\b(is|was) (clean|safe)\b", page_of(bare(verdict)).text)


def hostile() -> Report:
    labels = tuple(f"{HOSTILE} {index}" for index in range(10))
    evidence = [{**item, "reason": HOSTILE, "method": HOSTILE} for item in rejected().evidence]
    gaps = {"measured": False, "sentence": HOSTILE}
    return replace(
        with_facts(rejected(), reasons=(HOSTILE,), known_gaps=gaps),
        name=HOSTILE,
        manifest=replace(MODEL, label_names=labels),
        evidence=evidence,
        candidates=[{"defense": HOSTILE, "failed": HOSTILE}],
        policy=HOSTILE,
        scan_id=HOSTILE,
    )


def test_the_dtype_that_was_vetted_is_among_the_provenance() -> None:
    page = page_of(with_facts(rejected(), vetted_dtype="float32"))

    assert "Weights vetted as float32" in " ".join(page.text.split())


@pytest.mark.threat("C14")
def test_hostile_names_add_no_tag_and_no_attribute() -> None:
    page = page_of(hostile())

    assert "svg onload=alert(1)" in page.text
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in page_of(rejected()).tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not page.named("script")


def test_control_characters_do_not_reach_the_page() -> None:
    page = render_html(replace(rejected(), name="a\x1b[31m\u202eb"))

    assert "\x1b" not in page
    assert "\u202e" not in page


@pytest.mark.threat("C14")
def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    page = page_of(rejected())
    policy = next(
        meta["content"]
        for meta in page.named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )

    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not [
        attributes for _, attributes in page.tags if "style" in attributes or "href" in attributes
    ]
    assert all(
        str(image["src"]).startswith("data:image/png;base64,") for image in page.named("img")
    )


@pytest.mark.threat("C14")
def test_the_policy_allows_exactly_the_style_sheet_on_the_page() -> None:
    page = render_html(rejected())
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in page


def test_a_page_of_many_triggers_stays_small() -> None:
    report = replace(rejected(), triggers=[trigger()] * 20)

    assert len(render_html(report)) < 1_000_000


@pytest.mark.parametrize(
    ("would_be", "meaning"),
    [
        (WouldBe.REJECTED, "keeps it from nothing"),
        (WouldBe.PUBLISHED, "must not be served"),
    ],
)
def test_a_gate_that_only_warns_is_named_with_what_it_would_have_done(
    would_be: WouldBe, meaning: str
) -> None:
    said = Gated(mode=GateMode.WARN, would_be=would_be)

    text = page_of(with_facts(rejected(), gate=said)).text

    assert said.sentence in text
    assert meaning in text
    assert "only warns" not in page_of(rejected()).text
