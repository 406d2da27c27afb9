"""A sift as tables for people."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from guard.cli._render import console, table
from guard.core.sift import SiftedClass, SiftReport, SiftVerdict
from guard.core.text import printable
from guard.reports.charts import percent

STYLES = {
    SiftVerdict.NOTHING: "green",
    SiftVerdict.POISONED: "red",
    SiftVerdict.REVIEW: "yellow",
    SiftVerdict.COULD_NOT_LOOK: "magenta",
}


def print_sift(report: SiftReport, *, total: int | None = None) -> None:
    """Print a sift on stdout; `total` counts the suspects where the report has not all of them."""
    console().print(view(report, total=total))


def view(report: SiftReport, *, total: int | None = None) -> RenderableType:
    """The judgement in a frame, then the classes that stand out and the methods."""
    parts: list[RenderableType] = [_head(report, total)]
    standing = [one for one in report.classes if one.stands_out]
    if standing:
        columns = (
            "class",
            ">accused",
            ">of images",
            "kind",
            "obeyed",
            ">from one class",
            "estimated trigger",
        )
        parts.append(table(columns, [_class(one) for one in standing]))
    if report.methods:
        rows = [
            (one.method, one.version, one.failed or "looked", f"{one.seconds:.1f}")
            for one in report.methods
        ]
        parts.append(table(("method", ">version", "outcome", ">seconds"), rows))
    return Group(*parts)


def _head(report: SiftReport, total: int | None) -> Panel:
    facts, style = report.training_set, STYLES[report.verdict]
    lines = [Text(f"sha256:{printable(facts.digest)}", style="dim", overflow="fold")]
    lines += [Text(f"• {printable(reason)}") for reason in report.reasons]
    lines.append(Text())
    listed, kept = len(report.suspects), sum(one.proof for one in report.suspects)
    remarked = (
        f"{kept:,} of them kept for the proof"
        if total is None or total == listed
        else f"the first {listed:,} of them listed"
    )
    lines.append(
        Text(
            f"{listed if total is None else total:,} suspects ({remarked}) of "
            f"{facts.images:,} images; {facts.skipped:,} skipped, {facts.overlap:,} are also in "
            "the clean set"
        )
    )
    if report.least_p is not None:
        lines.append(Text(_floor(report)))
    lines += [Text(f"remark: {printable(one)}", style="dim") for one in report.remarks]
    title = Text.assemble(
        (f" {str(report.verdict).upper()} ", f"bold {style}"),
        (printable(facts.uri, limit=80), "bold"),
        " ",
    )
    return Panel(Group(*lines), title=title, title_align="left", border_style=style, padding=(0, 1))


def _floor(report: SiftReport) -> str:
    resolved = max((one.resolved for one in report.classes), default=0)
    return (
        f"at most {percent(report.rules.max_fdr)} of the suspects are estimated to be clean; with "
        f"so many clean images, fewer than {resolved} poisoned ones of a class cannot be seen"
    )


def _class(one: SiftedClass) -> tuple[object, ...]:
    obeyed, trigger = one.obedience, one.trigger
    return (
        one.name,
        f"{one.accused:,}",
        f"{one.images:,}",
        one.poisoning or "unknown",
        "not measured"
        if obeyed is None
        else f"{percent(obeyed.estimate)} ({percent(obeyed.low)} to {percent(obeyed.high)})",
        "" if one.source_share is None else percent(one.source_share),
        "none" if trigger is None else f"{trigger.family}, ASR {percent(trigger.asr.estimate)}",
    )
