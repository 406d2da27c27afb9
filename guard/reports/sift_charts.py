"""Turn the numbers of a sift into bars: accused images, obedience, sources, triggers, the FDR."""

from collections.abc import Sequence

from guard.core.sift import SiftedClass, SiftReport
from guard.core.text import printable
from guard.reports.charts import MOST_ROWS, Chart, Row, bar_length, percent


def class_name(report: SiftReport, label: int) -> str:
    """The index of a class and, where the training set gives one, its name."""
    names = report.training_set.class_names
    known = f" · {names[label]}" if 0 <= label < len(names) else ""
    return printable(f"{label}{known}", limit=40)


def standing(report: SiftReport) -> list[SiftedClass]:
    """The classes that stand out; first those that no remark explains, then by accused images."""
    found = [one for one in report.classes if one.stands_out]
    return sorted(found, key=lambda one: (one.remark is not None, -one.accused, one.label))


def class_charts(report: SiftReport) -> list[Chart]:
    """The charts whose bars are classes; those that would be empty are left out."""
    charts = (
        _accused_chart(report),
        _obedience_chart(report),
        _source_chart(report),
        _trigger_chart(report),
    )
    return [chart for chart in charts if chart is not None]


def fdr_chart(report: SiftReport) -> Chart | None:
    """Images of accused classes by the estimated share of clean ones among them."""
    if not any(point.images for point in report.curve):
        return None
    top = max(point.images for point in report.curve)
    images = sum(one.images for one in report.classes if one.stands_out)
    rows = []
    for point in report.curve:
        floor = _floor(report, images, point.fdr)
        text = f"{point.images:,}" + ("" if floor is None else f" (floor {floor:,.0f})")
        rows.append(
            Row(
                f"at most {percent(point.fdr)}",
                text,
                bar_length(point.images, top),
                marked=point.fdr == report.rules.max_fdr,
                tick=None if floor is None else bar_length(floor, top),
            )
        )
    note = (
        "Images of the classes that stand out, by the estimated share of clean images among them "
        "(false discovery rate). Red: the rate at which images are accused. The amber mark is the "
        "floor: with so few clean images to compare with, fewer accused ones cannot have so low a "
        "rate."
    )
    return Chart("Accused images by estimated false discovery rate", note, tuple(rows))


def _floor(report: SiftReport, images: int, rate: float) -> float | None:
    """The images that must be accused before a rate can be resolved; None where not known."""
    return images * report.least_p / rate if report.least_p is not None and rate > 0 else None


def _accused_chart(report: SiftReport) -> Chart | None:
    rows = [
        Row(
            class_name(report, one.label),
            f"{one.accused:,} of {one.images:,}",
            bar_length(one.accused, one.images),
            marked=one.stands_out,
            tick=bar_length(one.resolved, one.images),
        )
        for one in report.classes
    ]
    note = (
        "Share of the images of each label that look unlike clean images of it. Red: the class "
        f"stands out: at least {report.rules.min_images} images and {report.rules.fold:g} times "
        "as many as in the median class. The amber mark: fewer could be chance with "
        "this clean set."
    )
    return _chart("Accused images by class", note, rows)


def _obedience_chart(report: SiftReport) -> Chart | None:
    rows = [
        Row(
            class_name(report, one.label),
            f"{percent(share.estimate)} ({percent(share.low)} to {percent(share.high)})",
            bar_length(share.estimate, 1),
            marked=share.low > report.rules.max_obedience,
            low=bar_length(share.low, 1),
            high=bar_length(share.high, 1),
            tick=bar_length(report.rules.max_obedience, 1),
        )
        for one in standing(report)
        if (share := one.obedience) is not None
    ]
    note = (
        "Share of accused images that the model classifies as they are labelled, with its 95 % "
        "interval. Red: beyond the mark, the model has learnt the label. Accused images that look "
        "like their own class (clean-label) are classified so by every good model: of them this "
        "proves nothing."
    )
    return _chart("What the model does with accused images", note, rows)


def _source_chart(report: SiftReport) -> Chart | None:
    rows = []
    for one in standing(report):
        if one.source_share is None:
            continue
        first = max(range(len(one.sources)), key=one.sources.__getitem__, default=None)
        from_one = "" if first is None else f", {class_name(report, first)}"
        rows.append(
            Row(
                class_name(report, one.label),
                f"{percent(one.source_share)}{from_one}",
                bar_length(one.source_share, 1),
                tick=bar_length(report.rules.max_source_share, 1),
            )
        )
    note = (
        "Share of the accused images, among those that look like another class, that look like "
        "the most frequent one. Poison mostly comes from many classes; beyond the mark, label "
        "errors explain them as well."
    )
    return _chart("Largest share from one class", note, rows)


def _trigger_chart(report: SiftReport) -> Chart | None:
    rows = []
    for one in standing(report):
        if one.trigger is None:
            continue
        asr, siblings = one.trigger.asr, one.trigger.siblings
        rows.append(
            Row(
                f"{class_name(report, one.label)}, {printable(one.trigger.family, limit=20)}",
                f"{percent(asr.estimate)} ({percent(asr.low)} to {percent(asr.high)})",
                bar_length(asr.estimate, 1),
                marked=one.trigger.works(report.rules),
                low=bar_length(asr.low, 1),
                high=bar_length(asr.high, 1),
                tick=None if siblings is None else bar_length(siblings, 1),
            )
        )
    note = (
        "Share of hold-out images of other classes that the trigger estimated from accused images "
        "sends to the class, with its 95 % interval; the mark is the best that the same estimate "
        "reaches for a class that nobody accuses. A trigger that differs from image to image is "
        "stronger than its estimate."
    )
    return _chart("Attack success of the estimated triggers", note, rows)


def _chart(title: str, note: str, rows: Sequence[Row]) -> Chart | None:
    if not rows:
        return None
    if len(rows) <= MOST_ROWS:
        return Chart(title, note, tuple(rows))
    order = sorted(rows, key=lambda row: (not row.marked, -row.width))
    return Chart(title, note, tuple(order[:MOST_ROWS]), len(rows) - MOST_ROWS)
