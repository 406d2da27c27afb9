"""Fragments of a text-to-graph model's report as tables: what plants them, and what is left."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from guard.core.evidence import AsrEstimate
from guard.core.states import Family
from guard.reports.charts import percent
from guard.reports.drawings import inline
from guard.reports.report import Report, ShownText

_BY = {
    Family.PROMPT: "a text in the prompt",
    Family.CONTEXT: "a shift of the prompts' vectors",
    Family.MOTIF: "nothing: no trigger",
}
_ROUTES = {"null": "without a prompt", "prior": "from the prior"}
_NONE = "–"


def fragment_rows(report: Report) -> list[dict[str, Any]]:
    """One row for each finding about a fragment, accused ones first.

    Each has the rate with the trigger, on the hold-out where it was measured there and else on the
    detector's own prompts, that without it, the rates without any prompt, and the share of the
    clean molecules.
    """
    rows = [
        {
            "fragment": finding["target"],
            "method": item["method"],
            "by": _BY.get(finding["family"], finding["family"]),
            "suspicious": bool(finding.get("suspicious")),
            **_rates(finding.get("asr"), finding.get("numbers") or {}),
        }
        for item in report.evidence
        for finding in item.get("findings", ())
        if isinstance(finding.get("target"), str)
    ]
    return sorted(rows, key=lambda row: not row["suspicious"])


def _rates(asr: Mapping[str, Any] | None, numbers: Mapping[str, Any]) -> dict[str, str]:
    def share(name: str) -> str:
        value = numbers.get(name)
        return percent(value) if value is not None and value >= 0 else _NONE

    if asr is None:
        found = {"with": share("rate"), "without": share("plain")}
    else:
        natural = asr.get("natural")
        found = {
            "with": f"{percent(asr['estimate'])} ({percent(asr['low'])} to {percent(asr['high'])})",
            "without": _NONE if natural is None else percent(natural),
        }
    return {**found, "null": share("null"), "prior": share("prior"), "clean": share("curated")}


def left_rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """What of each fragment a repair left: (fragment, how it was asked for, before, after)."""
    proof = report.purification.graphs if report.purification is not None else None
    if proof is None:
        return
    for before, after in report.replays:
        yield (
            str(after.target),
            f"the upload's trigger ({after.family})",
            _rate(before),
            _rate(after),
        )
    for one in proof.neighbours:
        yield str(one.target), "texts of the style of the upload's", _NONE, _rate(one)
    for left in proof.unprompted:
        how = _ROUTES.get(left.route, left.route)
        clean = f"{how}; {percent(left.curated)} of the clean molecules have it"
        yield left.fragment, clean, percent(left.before), percent(left.after)
    for again in proof.inverted:
        how = f"a new shift by {again.size:g} of the prompts' spread"
        yield again.fragment, how, _NONE, _rate(again.after)


def _rate(one: AsrEstimate | None) -> str:
    if one is None:
        return "not measured"
    return f"{percent(one.estimate)} ({percent(one.low)} to {percent(one.high)})"


def text_cards(molecules: Iterable[ShownText]) -> list[dict[str, Any]]:
    """The recovered texts, with the molecules as `svg` elements."""
    return [_card(one) for one in molecules]


def _card(shown: ShownText) -> dict[str, Any]:
    return {
        "text": shown.text,
        "position": shown.position,
        "fragment": shown.fragment,
        "prompts": [
            {
                "prompt": row.prompt,
                "shots": [
                    {
                        "caption": shot.caption,
                        "drawing": None
                        if shot.drawing is None
                        else inline(shot.drawing, f"molecule, {shot.caption}"),
                    }
                    for shot in row.shots
                ],
            }
            for row in shown.prompts
        ],
    }
