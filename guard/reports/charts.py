"""Turn numbers into bars: which charts a report shows, and how long each bar is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guard.core.evidence import AsrEstimate, Target
from guard.core.manifest import Manifest
from guard.core.text import printable
from guard.reports.report import Report

MOST_ROWS = 24  # of a thousand classes, the most informative are shown; a note says so
_SIZES = ("norm", "l1", "l2", "mask", "size", "pixels", "budget")
_RATES = ("asr", "rate", "accuracy", "success")
_LEAST_SPREAD = 0.05
_CLASS_LOSS = 0.05
_MOST_CHARTS = 3  # per method; the JSON document has all numbers


@dataclass(frozen=True)
class Row:
    """One bar, with lengths in percent of its axis.

    `low` to `high` is a whisker, `tick` a mark, and `ghost` a paler bar.
    """

    label: str
    text: str
    width: float
    marked: bool = False
    low: float | None = None
    high: float | None = None
    tick: float | None = None
    ghost: float | None = None


@dataclass(frozen=True)
class Chart:
    """Bars on a common axis; `note` explains how to read them."""

    title: str
    note: str
    rows: tuple[Row, ...]
    left_out: int = 0


def label_of(report: Report, target: Target) -> str:
    """The index of a class and, where the manifest gives one, its name."""
    if target is None:
        return "unknown"
    names = report.manifest.label_names if isinstance(report.manifest, Manifest) else ()
    if isinstance(target, int) and 0 <= target < len(names):
        return printable(f"{target} · {names[target]}", limit=40)
    return printable(target, limit=40)


def evidence_charts(report: Report) -> list[Chart]:
    """The per-class charts of every method with findings about two or more classes."""
    charts: list[Chart] = []
    for item in report.evidence:
        findings = [
            finding
            for finding in item.get("findings", ())
            if isinstance(finding.get("target"), int)
        ]
        charts.extend(_recalls(report, item))
        if len(findings) >= 2:
            charts.extend(_number_charts(report, str(item["method"]), findings))
            charts.extend(_asr_chart(report, str(item["method"]), findings))
    return charts


def accuracy_chart(report: Report) -> Chart | None:
    """Clean accuracy by class before (pale) and after purification; None where not measured."""
    repair = report.purification
    if repair is None or len(repair.acc_before.per_class) != len(repair.acc_after.per_class):
        return None
    before, after = repair.acc_before, repair.acc_after
    pairs = list(enumerate(zip(before.per_class, after.per_class, strict=True)))
    shown = sorted(sorted(pairs, key=lambda pair: pair[1][1] - pair[1][0])[:MOST_ROWS])
    rows = tuple(
        Row(
            label_of(report, index),
            f"{percent(old)} → {percent(new)}",
            bar_length(new, 1),
            marked=old - new > _CLASS_LOSS,
            ghost=bar_length(old, 1),
        )
        for index, (old, new) in shown
    )
    note = (
        "Share of hold-out images that are classified correctly. Pale: the uploaded model; "
        "solid: the purified one; red: a loss of more than five points."
    )
    return Chart("Clean accuracy by class", note, rows, len(pairs) - len(shown))


def replay_chart(report: Report) -> Chart | None:
    """The parent's triggers, measured on the purified model."""
    repair = report.purification
    if repair is None or not repair.replayed:
        return None
    note = (
        "Success rates of the triggers recovered on the uploaded model, stamped on hold-out "
        "images and measured on the purified model."
    )
    if not report.replayed_before:
        return Chart(
            "Replayed triggers",
            note,
            tuple(_asr_row(report, item, marked=False) for item in repair.replayed),
        )
    rows = []
    for old, item in report.replays:
        if old is not None:
            rows.append(
                replace(
                    _asr_row(report, old, marked=True),
                    label=f"{label_of(report, item.target)}, before",
                )
            )
        rows.append(
            replace(
                _asr_row(report, item, marked=False),
                label=f"{label_of(report, item.target)}, after",
            )
        )
    return Chart("Replayed triggers", note, tuple(rows))


def resampled_chart(report: Report) -> Chart | None:
    """Fresh patches of the parent's distribution, or of new searches, before and after."""
    repair = report.purification
    if repair is None or not repair.resampled:
        return None
    note = (
        "Success rates of patches that the defense has not seen: drawn from the distribution "
        "learnt on the uploaded model, a new one for each hold-out image; where no distribution "
        "could be learnt, found by new searches."
    )
    rows = []
    for sample in repair.resampled:
        name = label_of(report, sample.after.target)
        name += f", {sample.searches} new searches" if sample.searches else ""
        rows.append(replace(_asr_row(report, sample.before, marked=True), label=f"{name}, before"))
        rows.append(replace(_asr_row(report, sample.after, marked=False), label=f"{name}, after"))
    return Chart("Fresh patches of the same kind", note, tuple(rows))


def suspects_chart(report: Report) -> Chart | None:
    """Accused training images and triggers estimated from them, before and after."""
    repair = report.purification
    if repair is None or not (repair.suspects or repair.moments):
        return None
    note = (
        "Accused training images that no repair has learnt from: the share that is still "
        "classified as the label that they were given. The tick is the estimated share of clean "
        "images among them, which keep their label. Estimated triggers are stamped on hold-out "
        "images; then the repaired model is searched for a patch of the same size from there."
    )
    rows = []
    for one in repair.suspects:
        name, tick = label_of(report, one.after.target), bar_length(one.fdr, 1)
        rows.append(
            replace(_asr_row(report, one.before, marked=True), label=f"{name}, before", tick=tick)
        )
        rows.append(
            replace(_asr_row(report, one.after, marked=False), label=f"{name}, after", tick=tick)
        )
    for found in repair.moments:
        name = f"{label_of(report, found.after.target)}, estimated trigger"
        rows.append(replace(_asr_row(report, found.before, marked=True), label=f"{name}, before"))
        rows.append(replace(_asr_row(report, found.after, marked=False), label=f"{name}, after"))
        if found.searched is not None:
            row = _asr_row(report, found.searched, marked=False)
            rows.append(replace(row, label=f"{name}, searched for from it"))
    return Chart(
        "Accused training images", note, tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS)
    )


def relearned_chart(report: Report) -> Chart | None:
    """How fast the parent's trigger is learnt again; the tick marks the best random trigger."""
    repair = report.purification
    if repair is None or not repair.relearned:
        return None
    first = repair.relearned[0]
    note = (
        f"A copy of the purified model is trained for a few steps on {first.images} images with "
        f"the trigger. The mark is the best of {len(first.rivals)} random triggers that were "
        "trained in the same way. A bar far beyond the mark shows that the backdoor was hidden "
        "rather than removed."
    )
    if len(first.leads) > 1:
        note += (
            f" All values are means over {len(first.leads)} draws of images and random triggers."
        )
    rows = []
    for taught in repair.relearned:
        for step, rate, best in zip(
            taught.steps, taught.asr, map(max, zip(*taught.rivals, strict=True)), strict=True
        ):
            label = f"{label_of(report, taught.target)}, {step} step{'' if step == 1 else 's'}"
            text = f"{percent(rate)} (random: {percent(best)})"
            rows.append(Row(label, text, bar_length(rate, 1), tick=bar_length(best, 1)))
    return Chart(
        "Learning the trigger anew", note, tuple(rows[:MOST_ROWS]), max(0, len(rows) - MOST_ROWS)
    )


def reactivated_chart(report: Report) -> Chart | None:
    """A small perturbation on top of the parent's trigger; the tick is one without the trigger."""
    repair = report.purification
    if repair is None or not repair.reactivated:
        return None
    note = (
        f"A universal perturbation of at most {percent(repair.reactivated[0].radius)} of the value "
        "range is learnt against the purified model on top of the uploaded model's trigger. The "
        "mark is a perturbation that was learnt without the trigger. A bar far beyond the mark "
        "shows that the trigger still helps."
    )
    rows = [
        replace(
            _asr_row(report, one.stamped, marked=False),
            tick=bar_length(one.alone.estimate, 1),
            text=f"{percent(one.stamped.estimate)} (without: {percent(one.alone.estimate)})",
        )
        for one in repair.reactivated
    ]
    return Chart("Reactivating the trigger", note, tuple(rows))


def shared_chart(report: Report) -> Chart | None:
    """The shares of shared adversarial examples before and after the repair."""
    risk = None if report.purification is None else report.purification.shared
    if risk is None:
        return None
    note = (
        f"Share of {risk.images} hold-out images for which a search found a perturbation of at "
        f"most {percent(risk.radius)} of the value range that leads the uploaded model and this "
        "one to the same mistake. The true share includes any part of the backdoor that both "
        "models still have; the search finds only some of it."
    )
    rows = (
        Row("uploaded model", percent(risk.before), bar_length(risk.before, 1)),
        Row("uploaded and purified", percent(risk.after), bar_length(risk.after, 1)),
    )
    return Chart("Shared adversarial examples", note, rows)


def percent(value: float | None) -> str:
    """A share as a percentage, such as `98.1 %`; a dash where not measured or not finite."""
    return f"{value * 100:.1f} %" if value is not None and math.isfinite(value) else "–"


def number(value: float | None) -> str:
    """A number with three significant digits; a dash where not measured or not finite."""
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "–"


def bar_length(value: float, top: float) -> float:
    """A value in percent of the axis that ends at `top`, 0..100; 0 for what is not finite."""
    if not math.isfinite(value) or top <= 0:
        return 0.0
    return round(100 * min(1.0, max(0.0, value / top)), 2)


def _recalls(report: Report, item: Mapping[str, Any]) -> list[Chart]:
    """Clean accuracy by class for a scan that purified nothing.

    For one that did, `accuracy_chart` compares before and after.
    """
    measured = item.get("accuracy")
    if not measured or report.purification is not None:
        return []
    rows = [
        Row(label_of(report, index), percent(value), bar_length(value, 1))
        for index, value in enumerate(measured["per_class"])
    ]
    if not rows:
        return []
    shown = sorted(rows, key=lambda row: row.width)[:MOST_ROWS] if len(rows) > MOST_ROWS else rows
    note = "Share of the hold-out images of a class that the model classifies correctly."
    return [Chart("Clean accuracy by class", note, tuple(shown), len(rows) - len(shown))]


def _number_charts(
    report: Report, method: str, findings: Sequence[Mapping[str, Any]]
) -> list[Chart]:
    shared = set.intersection(*({str(name) for name in finding["numbers"]} for finding in findings))
    charts = []
    for name in sorted(shared, key=_chart_order)[:_MOST_CHARTS]:
        values = [float(finding["numbers"][name]) for finding in findings]
        finite = [value for value in values if math.isfinite(value)]
        if (
            not finite
            or min(finite) < 0
            or max(finite) - min(finite) <= _LEAST_SPREAD * max(finite)
        ):
            # Nearly equal values say nothing about any class, and bars start at zero.
            continue
        rate = _is_rate(name) and max(finite) <= 1
        top = 1.0 if rate else max(finite)
        rows = [
            Row(
                _subject(report, finding, findings),
                percent(value) if rate else number(value),
                bar_length(value, top),
                marked=bool(finding.get("suspicious")),
            )
            for finding, value in zip(findings, values, strict=True)
        ]
        small = not rate and any(part in name for part in _SIZES)
        note = (
            "The target class of a backdoor needs a far smaller trigger than other classes."
            if small
            else ""
        )
        charts.append(_cut(f"{_readable(method)}: {_readable(name)}", note, rows, smallest=small))
    return charts


def _asr_chart(report: Report, method: str, findings: Sequence[Mapping[str, Any]]) -> list[Chart]:
    measured = [finding for finding in findings if finding.get("asr")]
    if not measured:
        return []
    rows = [
        replace(
            _asr_row(report, AsrEstimate(**finding["asr"]), marked=bool(finding.get("suspicious"))),
            label=_subject(report, finding, findings),
        )
        for finding in measured
    ]
    note = (
        "Share of the hold-out images of other classes that the recovered trigger sends to this "
        "class, with its 95 % interval."
    )
    return [
        _cut(f"{_readable(method)}: attack success on the hold-out", note, rows, smallest=False)
    ]


def _subject(
    report: Report, finding: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]
) -> str:
    """The class of a finding, with the family where a method reports several families."""
    label = label_of(report, finding["target"])
    families = {other["family"] for other in findings}
    return label if len(families) == 1 else f"{label}, {_readable(finding['family'])}"


def _asr_row(report: Report, estimate: AsrEstimate, *, marked: bool) -> Row:
    text = f"{percent(estimate.estimate)} ({percent(estimate.low)} to {percent(estimate.high)})"
    return Row(
        label_of(report, estimate.target),
        text,
        bar_length(estimate.estimate, 1),
        marked,
        low=bar_length(estimate.low, 1),
        high=bar_length(estimate.high, 1),
        tick=bar_length(estimate.natural, 1) if estimate.natural is not None else None,
    )


def _cut(title: str, note: str, rows: Sequence[Row], *, smallest: bool) -> Chart:
    if len(rows) <= MOST_ROWS:
        return Chart(title, note, tuple(rows))
    order = sorted(rows, key=lambda row: (not row.marked, row.width if smallest else -row.width))
    return Chart(title, note, tuple(order[:MOST_ROWS]), len(rows) - MOST_ROWS)


def _chart_order(name: str) -> tuple[int, str]:
    kind = 0 if any(part in name for part in _SIZES[:5]) else 1 if _is_rate(name) else 2
    return kind, name


def _is_rate(name: str) -> bool:
    return any(part in name for part in _RATES)


def _readable(name: str) -> str:
    return printable(name.replace("_", " "), limit=60)
