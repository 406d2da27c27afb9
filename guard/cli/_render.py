"""Tables for people, made with rich.

Markup, emoji codes and highlighting are off: a model called `[red]` stays `[red]`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from guard.core.evidence import AsrEstimate
from guard.core.purification import PurificationFacts, Relearned
from guard.core.sift import SiftedSet
from guard.core.states import Verdict
from guard.core.text import printable
from guard.reports.charts import label_of, number, percent
from guard.reports.repaired import repair_sentence
from guard.reports.report import Report, candidate_outcome, chain_of, outcome_text, parameters_text
from guard.reports.retraining import before_and_after, sentences

STYLES = {
    Verdict.CLEARED: "green",
    Verdict.PURIFIED: "green",
    Verdict.REJECTED: "red",
    Verdict.HELD: "yellow",
    Verdict.UNVETTABLE: "magenta",
    Verdict.INCONCLUSIVE: "yellow",
}


def console(*, width: int | None = None) -> Console:
    """A console on stdout; without a terminal it is so wide that usual tables fold no cell."""
    shown = Console(markup=False, emoji=False, highlight=False)
    if width is not None or not shown.is_terminal:
        shown = Console(markup=False, emoji=False, highlight=False, width=width or 140)
    return shown


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A plain table.

    Columns that start with `>` are right-aligned; cells are made printable unless they are `Text`.
    """
    made = Table(
        box=SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    cells = [
        [
            cell if isinstance(cell, Text) else Text(printable("" if cell is None else cell))
            for cell in row
        ]
        for row in rows
    ]
    least = _least([column.lstrip(">") for column in columns], cells)
    for column, width in zip(columns, least, strict=True):
        right = column.startswith(">")
        made.add_column(
            column.lstrip(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            min_width=width,
        )
    for cell in cells:
        made.add_row(*cell)
    return made


def _least(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[int]:
    """The width that each column needs so that no name in it is broken, where all have room."""
    longest = [
        max((len(part) for cell in (name, *cells) for part in str(cell).split()), default=1)
        for name, cells in zip(
            columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True
        )
    ]
    # Three columns of space beside each: padding on both sides, and what the box puts between.
    room, cap = console().width - 3 * len(columns), max(longest, default=1)
    while cap > 1 and sum(min(one, cap) for one in longest) > room:
        cap -= 1  # the longest of all, such as an address, is broken first
    return [one if one <= cap else 1 for one in longest]


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str = "",
    empty: str = "none",
) -> None:
    """Print a table on stdout, or the text `empty` where it would have no rows."""
    console().print(table(columns, rows, title=title) if rows else Text(empty))


def verdict_text(verdict: Verdict | None, *, expired: bool = False) -> Text:
    """A verdict in its colour; a dash where there is none yet, dim where it has expired."""
    if verdict is not None and expired:
        return Text(f"{verdict} (expired)", style="dim")
    return (
        Text(str(verdict), style=f"bold {STYLES[verdict]}")
        if verdict is not None
        else Text("-", style="dim")
    )


def print_report(report: Report, *, width: int | None = None) -> None:
    """Print a report on stdout."""
    console(width=width).print(report_view(report))


def report_view(report: Report) -> RenderableType:
    """A report as one renderable: the verdict in a frame, then its grounds."""
    parts: list[RenderableType] = [_head(report)]
    suspicious = [
        (
            item["method"],
            label_of(report, finding.get("target")),
            number(finding.get("score")),
            finding["statement"],
        )
        for item in report.evidence
        for finding in item.get("findings", ())
        if finding.get("suspicious")
    ]
    if suspicious:
        parts.append(table(("method", "class", ">score", "suspicious finding"), suspicious))
    if report.evidence:
        parts.append(
            table(
                ("method", ">version", "outcome", ">seconds"),
                [_method(item) for item in report.evidence],
            )
        )
    if report.purification is not None or report.candidates:
        parts.extend(_purification(report))
    if (facts := report.retraining) is not None:
        rows = before_and_after(report, facts)
        parts.append(table((f"retrained by {printable(facts.method)}", ">before", ">after"), rows))
        parts += [Text(printable(sentence), style="dim") for sentence in sentences(facts)]
    return Group(*parts)


def _head(report: Report) -> Panel:
    style = "dim" if report.expired else STYLES[report.verdict]
    lines = [Text(f"sha256:{printable(report.digest)}", style="dim", overflow="fold")]
    if report.expired:
        lines.append(Text(f"expired at {report.expires_at}; scan it again", style="bold yellow"))
    if report.facts.gate is not None:
        lines.append(Text(report.facts.gate.sentence, style="bold yellow"))
    if holds := repair_sentence(report):
        lines.append(Text(holds, style="bold"))
    lines += [Text(f"• {printable(reason)}") for reason in report.reasons]
    lines += [
        Text(f"• {printable(waiver.sentence)}", style="yellow") for waiver in report.facts.waivers
    ]
    lines.append(Text())
    target = label_of(report, report.target) if report.target is not None else "none"
    score = "probability of a backdoor" if report.facts.calibration else "suspicion"
    lines.append(
        Text(f"{score} {number(report.score)}   target class {target}   {report.seconds:.1f} s")
    )
    done = report.similarity
    task = (
        f"clean accuracy {percent(report.accuracy)}" if done is None else f"similarity {done:.2f}"
    )
    lines.append(Text(f"{_asr_text(report)}   {task}"))
    lines.append(Text(f"covered: {printable(', '.join(report.facts.coverage)) or 'nothing'}"))
    if report.not_covered:
        lines.append(Text(f"not covered: {', '.join(report.not_covered)}", style="dim"))
    if (sifted := report.facts.training_set) is not None:
        lines.append(Text(f"training set {printable(sifted.uri)}: {_sift(sifted)}"))
    if report.facts.known_gaps:
        lines.append(Text(printable(report.facts.known_gaps["sentence"]), style="dim"))
    name = printable(report.name, limit=80)
    title = Text.assemble(
        (
            f" {str(report.verdict).upper()}{' (EXPIRED)' if report.expired else ''} ",
            f"bold {style}",
        ),
        (name, "bold"),
        " ",
    )
    return Panel(Group(*lines), title=title, title_align="left", border_style=style, padding=(0, 1))


def _sift(sifted: SiftedSet) -> str:
    result = str(sifted.result).replace("_", " ")
    return f"{result}, {sifted.suspects:,} suspects" if sifted.suspects else result


def _method(item: Mapping[str, Any]) -> tuple[object, ...]:
    outcome = outcome_text(item)
    style = {"could not look": "bold yellow", "suspicious": "bold red"}.get(outcome, "")
    shown = Text(outcome, style=style)
    if item.get("reason"):
        shown.append(f": {printable(item['reason'])}", style="default")
    return item["method"], item["version"], shown, f"{item['seconds']:.1f}"


def _purification(report: Report) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if report.purification is not None:
        parts.append(_before_and_after(report, report.purification))
        parts += [_relearned(report, taught) for taught in report.purification.relearned]
        parts += _beyond(report, report.purification)
    if report.candidates:
        tried = []
        for item in report.candidates:
            became, why = candidate_outcome(item)
            tried.append((chain_of(item), became, _seconds(item.get("seconds")), why))
        parts.append(table(("candidate", "verdict", ">seconds", "first reason"), tried))
    return parts


def _before_and_after(report: Report, repair: PurificationFacts) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            "clean accuracy",
            percent(repair.acc_before.overall),
            percent(repair.acc_after.overall),
        ),
    ]
    rows += [
        (f"trigger to class {label_of(report, item.target)}", _asr(old), _asr(item))
        for old, item in report.replays
    ]
    rows += [
        (
            f"fresh patches to class {label_of(report, sample.after.target)}"
            + (f" ({sample.searches} new searches)" if sample.searches else ""),
            _asr(sample.before),
            _asr(sample.after),
        )
        for sample in repair.resampled
    ]
    rows += [
        (
            f"accused images of class {label_of(report, one.after.target)}",
            _asr(one.before),
            _asr(one.after),
        )
        for one in repair.suspects
    ]
    rows += [
        (
            f"trigger estimated from them, to class {label_of(report, one.after.target)}",
            _asr(one.before),
            _asr(one.after),
        )
        for one in repair.moments
    ]
    rows += [
        (
            f"patch searched for from it, to class {label_of(report, one.after.target)}",
            "",
            _asr(one.searched),
        )
        for one in repair.moments
        if one.searched is not None
    ]
    return table((f"purified by {printable(report.chain)}", ">before", ">after"), rows)


def _beyond(report: Report, repair: PurificationFacts) -> Iterable[RenderableType]:
    """Measurements beyond the recovered triggers, and what could not be measured."""
    for one in repair.reactivated:
        yield Text(
            f"trigger with an added perturbation of {percent(one.radius)}: success rate for class "
            f"{label_of(report, one.stamped.target)} is {percent(one.stamped.estimate)}, without "
            f"the trigger {percent(one.alone.estimate)}"
        )
    if (risk := repair.shared) is not None:
        yield Text(
            f"a perturbation of at most {percent(risk.radius)} leads both models to the same "
            f"mistake on {percent(risk.after)} of {risk.images} images ({percent(risk.before)} "
            "before the repair)"
        )
    for found in repair.universal:
        yield Text(found.sentence)
    for sentence in repair.unproved:
        yield Text(f"not measured: {printable(sentence)}", style="dim")
    if repair.parameters:
        yield Text(f"with {printable(parameters_text(repair.parameters))}", style="dim")


def _relearned(report: Report, taught: Relearned) -> Text:
    best = max(rates[-1] for rates in taught.rivals)
    return Text(
        f"re-learning, {taught.images} images: class {label_of(report, taught.target)} at "
        f"{percent(taught.asr[-1])} after {taught.steps[-1]} steps, random triggers at "
        f"{percent(best)} "
        f"(largest lead {number(100 * taught.lead)} points{_apart(taught.leads)})"
    )


def _apart(leads: Sequence[float]) -> str:
    if len(leads) < 2:
        return ""
    return (
        f" in the mean of {len(leads)} draws, single ones {number(100 * min(leads))} to "
        f"{number(100 * max(leads))}"
    )


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _asr_text(report: Report) -> str:
    natural = report.facts.natural_trigger
    if report.asr is None and natural is not None:
        return f"nothing accused (the most unusual natural trigger has {_asr(natural)})"
    upper = (
        ""
        if report.facts.asr_upper is None
        else f", all triggers at once at most {percent(report.facts.asr_upper)}"
    )
    of = "uploaded model's triggers" if report.purification is not None else "attack success rate"
    return f"{of} {_asr(report.asr)}{upper}"


def _asr(estimate: AsrEstimate | None) -> str:
    if estimate is None:
        return "not measured"
    return f"{percent(estimate.estimate)} ({percent(estimate.low)} to {percent(estimate.high)})"
