"""Print or write a report in the requested form."""

from pathlib import Path

from guard.cli._output import ReportFormat, print_json, say, write_text
from guard.reports.report import Report


def answer(report: Report, form: ReportFormat, out: Path | None = None) -> int:
    """Print or write a report and return the exit code of its verdict.

    With HTML, `out` is the file, and stdout shows the verdict and the path of the page.
    """
    if form is ReportFormat.JSON:
        print_json(report.to_dict())
    elif form is ReportFormat.HTML and out is not None:
        from guard.reports.html import render_html

        write_text(out, render_html(report))
        expired = " (expired)" if report.expired else ""
        say(f"{report.verdict}{expired} {report.name} {out}")
    else:
        from guard.cli._render import print_report

        print_report(report)
    return report.exit_code
