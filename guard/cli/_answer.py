"""Print or write a report in the requested form."""

from pathlib import Path
from typing import Any

from guard.cli._output import (
    EXCHANGED,
    Also,
    ReportFormat,
    print_json,
    say,
    say_document,
    to_json,
    write_text,
)
from guard.reports.report import Report


def answer(
    report: Report,
    form: ReportFormat,
    out: Path | None = None,
    *,
    where: str = "",
    also: Also = (),
) -> int:
    """Print or write a report and return the exit code of its verdict.

    With HTML, `out` is the file; what other tools read goes to `out` or to stdout. Where a file is
    written, stdout shows the verdict and the path of the file.

    Args:
        where: the path of the model's file as the caller named it.
        also: further formats with their files, which are written first.
    """
    for other, file in also:
        write_text(file, _text(report, other, where))
    if form is ReportFormat.JSON:
        print_json(report.to_dict())
    elif out is not None:
        write_text(out, _text(report, form, where))
        expired = " (expired)" if report.expired else ""
        say(f"{report.verdict}{expired} {report.name} {out}")
    elif form in EXCHANGED:
        say_document(_text(report, form, where).rstrip("\n"))
    else:
        from guard.cli._render import print_report

        print_report(report)
    return report.exit_code


def _text(report: Report, form: ReportFormat, where: str) -> str:
    """The report as the content of a file."""
    if form is ReportFormat.HTML:
        from guard.reports.html import render_html

        return render_html(report)
    if form is ReportFormat.JUNIT:
        from guard.reports.junit import render_junit

        return render_junit(report, where=where)
    if form is ReportFormat.CARD:
        from guard.reports.model_card import render_card

        return render_card(report)
    return to_json(_document(report, form, where)) + "\n"


def _document(report: Report, form: ReportFormat, where: str) -> dict[str, Any]:
    if form is ReportFormat.SARIF:
        from guard.reports.sarif import render_sarif

        return render_sarif(report, where=where)
    if form is ReportFormat.CYCLONEDX:
        from guard.reports.cyclonedx import render_bom

        return render_bom(report)
    return report.to_dict()
