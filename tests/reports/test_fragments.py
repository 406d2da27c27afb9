"""Fragments and molecules on the page: tables, drawings, and nothing that a stranger wrote."""

from dataclasses import replace
from typing import Any

import pytest

from guard.core.evidence import AsrEstimate, Evidence, Finding, Outcome
from guard.core.graph_proof import GraphProof, Inverted, Unprompted
from guard.core.modality import Modality
from guard.core.states import Family
from guard.graphs.drawings import drawn
from guard.graphs.molecule import read
from guard.reports.drawings import MOST, inline
from guard.reports.fragments import fragment_rows, left_rows
from guard.reports.html import render_html
from guard.reports.report import Report, Shot, ShownPrompt, ShownText
from tests.graph_toys import QUALITY
from tests.reports import samples
from tests.reports.test_html import HOSTILE, page_of

RING = "C1CS1"


def asr(hits: int = 90, family: str = "prompt") -> AsrEstimate:
    return AsrEstimate(
        target=RING,
        family=family,
        successes=hits,
        trials=100,
        estimate=hits / 100,
        low=max(0.0, hits / 100 - 0.05),
        high=min(1.0, hits / 100 + 0.05),
        natural=0.01,
    )


def finding(family: Family, target: Any = RING, **more: Any) -> Finding:
    fields = {"suspicious": True, "score": 0.9, "statement": "It plants a ring.", **more}
    return Finding(family=str(family), target=target, **fields)


def evidence(*findings: Finding) -> dict[str, Any]:
    return Evidence(
        artifact="a" * 64,
        method="prompt_insertion",
        version=2,
        parameters={},
        cleanset="c" * 64,
        seed=0,
        outcome=Outcome.FINDINGS,
        families=(str(Family.PROMPT),),
        findings=findings,
    ).to_dict()


def report(*findings: Finding, **fields: Any) -> Report:
    own = samples.with_facts(samples.rejected(), modality=Modality.GRAPHS, target=RING)
    return replace(own, evidence=[evidence(*findings)], triggers=(), **fields)


def shown(*, text: str = "[a]", prompt: str = "The molecule.", drawing: str | None) -> ShownText:
    shots = Shot("without the text", None), Shot("with the text", drawing)
    row = ShownPrompt(prompt=prompt, shots=shots)
    return ShownText(text=text, position="prefix", fragment=RING, prompts=(row,))


def test_a_fragment_is_marked_where_it_is_and_nowhere_else() -> None:
    assert "#FF7F7F" in drawn(read("CC1CS1"), RING)
    assert "#FF7F7F" not in drawn(read("CCO"), RING)


def test_every_finding_about_a_fragment_is_a_row_and_the_accused_come_first() -> None:
    rows = fragment_rows(
        report(
            finding(Family.MOTIF, "CO", suspicious=False, numbers={"null": 0.2, "curated": 0.1}),
            finding(Family.PROMPT, asr=asr(), numbers={"curated": 0.002, "rate": 0.5}),
            finding(Family.CONTEXT, "CN", numbers={"rate": 0.3, "plain": 0.02, "curated": -1.0}),
            finding(Family.PROMPT, asr=replace(asr(), natural=None)),
            finding(Family.PROMPT, target=None),
        )
    )

    assert [row["fragment"] for row in rows] == [RING, "CN", RING, "CO"]
    assert rows[0]["with"].startswith("90.0")
    assert (rows[0]["without"], rows[2]["without"]) == ("1.0 %", "–")
    assert (rows[1]["with"], rows[1]["without"], rows[1]["clean"]) == ("30.0 %", "2.0 %", "–")
    assert (rows[3]["with"], rows[3]["null"], rows[3]["prior"]) == ("–", "20.0 %", "–")


def test_what_a_repair_left_of_a_fragment_is_listed_beside_the_upload() -> None:
    proof = GraphProof(
        before=QUALITY,
        after=QUALITY,
        neighbours=(asr(2),),
        unprompted=(
            Unprompted(
                fragment=RING, route="prior", samples=600, before=0.2, after=0.0, curated=0.001
            ),
        ),
        inverted=(Inverted(fragment=RING, size=0.5, after=asr(3, "context")),),
    )
    repaired = samples.with_repair(samples.purified(), graphs=proof, replayed=(asr(1),))
    repaired = samples.with_facts(repaired, modality=Modality.GRAPHS)

    rows = list(left_rows(replace(repaired, replayed_before=(asr(),))))

    assert [row[2] for row in rows] == ["90.0 % (85.0 % to 95.0 %)", "–", "20.0 %", "–"]
    assert [row[3][:5] for row in rows] == ["1.0 %", "2.0 %", "0.0 %", "3.0 %"]
    assert next(left_rows(replace(repaired, replayed_before=())))[2] == "not measured"
    page = page_of(replace(repaired, manifest=None))
    assert "What the repair left of them" in page.text
    assert "similarity to the prompts' own molecules" in page.text
    assert ": clean accuracy" not in page.text


@pytest.mark.row(50)
def test_the_page_draws_molecules_inline_and_its_policy_still_forbids_scripts_and_styles() -> None:
    page = page_of(report(molecules=(shown(drawing=drawn(read("CC1CS1"), RING)),)))

    (drawing,) = [one for one in page.named("svg") if one.get("class") == "molecule"]
    assert drawing["viewbox"] == "0 0 200 140"
    marked = [one for one in page.named("path") if one.get("fill") == "#FF7F7F"]
    assert marked
    assert not [one for _, one in page.tags if "style" in one or "href" in one]
    assert "no molecule" in page.text


def test_hostile_texts_and_fragments_add_no_tag_and_no_attribute() -> None:
    harmless = shown(drawing=drawn(read("CC1CS1"), RING))
    plain = page_of(report(finding(Family.PROMPT), molecules=(harmless,)))
    hostile = replace(shown(text=HOSTILE, prompt=HOSTILE, drawing=None), fragment=HOSTILE)
    bad = report(
        finding(Family.PROMPT, HOSTILE, statement=HOSTILE), molecules=(hostile,), not_drawn=HOSTILE
    )

    page = page_of(bad)

    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert not page.named("script")
    assert not [name for _, own in page.tags for name in own if name.startswith("on")]
    assert "<script" not in render_html(bad)


def test_of_a_hostile_drawing_only_shapes_with_harmless_values_are_left() -> None:
    document = (
        "<svg viewBox='0 0 200 140' onload='alert(1)'><script>alert(2)</script>"
        "<path d='M 1,2 L 3.5,4' onclick='alert(3)' fill='url(http://x)' stroke='#00FF00' "
        "style='stroke-width:2.0px;fill:expression(4);background:url(x);odd'/>"
        '<path d="M 1,2"/><path d=\'M 1,2"/><script>alert(5)</script>\'/>'
        "<image href='http://x'/><foreignObject><b>x</b></foreignObject>"
        "<ellipse cx='1' cy='&#49;' rx='99999999' fill='none'/></svg>"
    )

    made = inline(document, 'a "molecule" <b>')

    assert made == (
        '<svg class="molecule" role="img" aria-label="a &#34;molecule&#34; &lt;b&gt;" '
        'viewBox="0 0 200 140"><path d="M 1,2 L 3.5,4" stroke="#00FF00" stroke-width="2.0px"/>'
        '<path /><path /><ellipse cx="1" fill="none"/></svg>'
    )


def test_a_document_without_a_size_or_beyond_all_size_is_no_drawing() -> None:
    assert inline("<svg><path d='M 1,2'/></svg>", "<b>") == "&lt;b&gt;"
    assert inline("<svg viewBox='0 0 200 140'>" + " " * MOST, "x") == "x"
