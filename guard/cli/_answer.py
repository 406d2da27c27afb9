"""A report in the form that was asked for."""

from pathlib import Path

from guard.cli._output import ReportFormat, print_json, say, write_text
from guard.reports.report import Report


def answer(report: Report, form: ReportFormat, out: Path | None = None) -> int:
    """Print or write a report; returns the exit code that its verdict has.

    With HTML, `out` is the file and stdout says the verdict and where the page lies.
    """
    if form is ReportFormat.JSON:
        print_json(report.to_dict())
    elif form is ReportFormat.HTML and out is not None:
        from guard.reports.html import render_html

        write_text(out, render_html(report))
        say(f"{report.verdict} {report.name} {out}")
    else:
        from guard.cli._render import print_report

        print_report(report)
    return report.exit_code
