"""Print or write a report in the requested form."""

from pathlib import Path

from guard.cli._output import (
    EXCHANGED,
    ReportFormat,
    print_json,
    say,
    say_document,
    to_json,
    write_text,
)
from guard.reports.report import Report


def answer(report: Report, form: ReportFormat, out: Path | None = None, *, where: str = "") -> int:
    """Print or write a report and return the exit code of its verdict.

    With HTML, `out` is the file; what other tools read goes to `out` or to stdout. Where a file is
    written, stdout shows the verdict and the path of the file.

    Args:
        where: the path of the model's file as the caller named it.
    """
    if form is ReportFormat.JSON:
        print_json(report.to_dict())
    elif form is ReportFormat.HTML and out is not None:
        from guard.reports.html import render_html

        _written(report, out, render_html(report))
    elif form in EXCHANGED:
        text = _document(report, form, where)
        if out is None:
            say_document(text.rstrip("\n"))
        else:
            _written(report, out, text.rstrip("\n") + "\n")
    else:
        from guard.cli._render import print_report

        print_report(report)
    return report.exit_code


def _document(report: Report, form: ReportFormat, where: str) -> str:
    if form is ReportFormat.SARIF:
        from guard.reports.sarif import render_sarif

        return to_json(render_sarif(report, where=where))
    if form is ReportFormat.JUNIT:
        from guard.reports.junit import render_junit

        return render_junit(report, where=where)
    if form is ReportFormat.CYCLONEDX:
        from guard.reports.cyclonedx import render_bom

        return to_json(render_bom(report))
    from guard.reports.model_card import render_card

    return render_card(report)


def _written(report: Report, out: Path, text: str) -> None:
    write_text(out, text)
    expired = " (expired)" if report.expired else ""
    say(f"{report.verdict}{expired} {report.name} {out}")
