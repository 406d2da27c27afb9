"""The guard's section of a model card: Markdown, and results in the Hugging Face front matter.

Format: https://huggingface.co/docs/hub/model-cards (`model-index`). Both parts stand between
markers, so that a card is renewed without touching what people wrote. JSON is YAML: every value in
the front matter is written as JSON.
"""

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from guard import __version__
from guard.core.errors import InputError
from guard.core.modality import Modality
from guard.core.text import printable
from guard.reports._methods import about, could_not_look
from guard.reports._metrics import ACCURACY, Metric, limitations, metrics
from guard.reports.judged import HELP
from guard.reports.report import Report, outcome_text
from guard.reports.sarif import judge

BEGIN, END = "<!-- registry-guard:begin -->", "<!-- registry-guard:end -->"
YAML_BEGIN, YAML_END = "# registry-guard:begin", "# registry-guard:end"
#: What a model hub calls the tasks.
_TASKS = {Modality.IMAGES: "image-classification", Modality.GRAPHS: "graph-ml"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-!|~$@:])")
_FENCE = "---\n"


def render_card(report: Report) -> str:
    """A card that holds nothing but the guard's section."""
    return f"{_FENCE}{_front_matter(report)}{_FENCE}\n{_section(report)}"


def renewed(card: str, report: Report) -> str:
    """A card with the guard's section in it: in place of the one between its markers, or added.

    Raises:
        InputError: the card has results of its own in its front matter, or lost a marker.
    """
    front, body = _parted(card)
    front = _replaced(front, _front_matter(report), YAML_BEGIN, YAML_END)
    if len(re.findall(r"^model-index\s*:", front, re.MULTILINE)) > 1:
        raise InputError(
            "The card has a model-index of its own; merge the output of `guard card` by hand.",
            code="card_index",
        )
    body = _replaced(body, _section(report), BEGIN, END)
    return f"{_FENCE}{front}{_FENCE}{body}"


def _parted(card: str) -> tuple[str, str]:
    """Front matter and body of a card; the front matter is empty where there is none."""
    card = card.replace("\r\n", "\n")
    if not card.startswith(_FENCE):
        return "", f"\n{card}"
    front, fence, body = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    if not fence:
        raise InputError("The card's front matter has no end (`---`).", code="card_front_matter")
    return f"{front}\n", body


def _replaced(text: str, new: str, begin: str, end: str) -> str:
    lines = text.split("\n")
    places = [[at for at, line in enumerate(lines) if line == one] for one in (begin, end)]
    if places == [[], []]:
        return f"{text.rstrip()}\n{new}" if text.strip() else new
    if [len(one) for one in places] != [1, 1] or places[0] > places[1]:
        raise InputError(
            f"The card's markers {begin} and {end} do not stand once each, in this order.",
            code="card_markers",
        )
    (first,), (last,) = places
    before, after = lines[:first], lines[last + 1 :]
    return "\n".join([*before, new.rstrip("\n"), *after])


def _front_matter(report: Report) -> str:
    entry = {"name": printable(report.name), "results": [_results(report)]}
    lines = [YAML_BEGIN, "model-index:", f"- {_json(entry)}", YAML_END]
    return "\n".join(lines) + "\n"


def _results(report: Report) -> dict[str, Any]:
    task = _TASKS[report.facts.modality]
    clean = report.cleanset
    name = clean.name if clean is not None else "none"
    return {
        "task": {"type": task},
        "dataset": {
            "name": f"clean set {printable(name)} (hold-out)",
            "type": "registry-guard/cleanset",
            **({"revision": clean.digest} if clean is not None else {}),
        },
        "metrics": [
            {
                "type": "accuracy" if one.kind == ACCURACY else one.kind.replace(" ", "_"),
                "value": round(one.value, 4),
                "name": _named(one),
            }
            for one in metrics(report)
        ]
        or [{"type": "verdict", "value": judge(report).key, "name": "registry-guard verdict"}],
    }


def _named(one: Metric) -> str:
    return f"{one.kind}, {one.slice}{_interval(one)}"


def _interval(one: Metric) -> str:
    if one.low is None or one.high is None:
        return ""
    return f" (95 % interval {one.low:.4f} to {one.high:.4f})"


def _json(value: Any) -> str:
    # ASCII only, so that no YAML reader sees another character than JSON's.
    return json.dumps(value, allow_nan=False)


def _section(report: Report) -> str:
    judged = judge(report)
    parts = [
        BEGIN,
        "## Backdoor vetting",
        "",
        f"**{judged.key}** - {HELP[judged.key][0]} {HELP[judged.key][1]}",
        "",
        *(f"- {_text(reason)}" for reason in report.reasons),
        "",
        *_table(("measured on", "value", "95 % interval"), _metric_rows(report)),
        *_table(("method", "what it looks for", "outcome"), _method_rows(report)),
        *(f"- Limit: {_text(one)}" for one in limitations(report)),
        "",
        f"SHA-256 of the weights: `{_code(report.digest)}`. {_text(_lineage(report))}",
        "",
        f"<sub>{_text(_made(report))}</sub>",
        END,
    ]
    return "\n".join(parts) + "\n"


def _metric_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for one in metrics(report):
        interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        yield f"{one.kind}, {one.slice}", f"{one.value:.3f}", interval


def _method_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for item in report.evidence:
        outcome = outcome_text(item)
        if could_not_look(item):
            outcome += f": {item.get('reason') or 'no reason was given'}"
        families = ", ".join(item["families"]) or about(item["method"]).about
        yield f"{item['method']} {item['version']}", families, outcome


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    found = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    if not found:
        return []
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *found, ""]


def _lineage(report: Report) -> str:
    if report.purification is not None:
        return f"Repaired from {report.purification.parent} by {report.purification.chain}."
    return f"Made from {report.facts.parent}." if report.facts.parent else ""


def _made(report: Report) -> str:
    parts = [f"Written by registry-guard {__version__}", f"policy {report.policy[:16]}"]
    if report.source:
        parts.append(f"vetted {report.source}")
    if report.verdict_id:
        parts.append(f"verdict {report.verdict_id}")
    if report.expires_at:
        parts.append(f"{'expired' if report.expired else 'holds until'} {report.expires_at}")
    return "; ".join(parts) + ". What counts is the signed verdict."


def _text(value: object) -> str:
    """Text from strangers that is neither HTML nor Markdown."""
    return _SPECIAL.sub(r"\\\1", html.escape(printable(value), quote=False))


def _code(value: str) -> str:
    return re.sub("[^0-9a-f]", "", value)
