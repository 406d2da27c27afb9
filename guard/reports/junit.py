"""A report, or a list of verdicts, as JUnit XML, which every CI system shows as tests.

Schema: the Jenkins xUnit plug-in's `junit-10.xsd`. One test case for the verdict and one for each
method: a method that accuses is a failure where the policy acted on it, one that could not look is
an error, and a trigger family that nobody looked for is skipped. So no file is without a test, and
nothing that was not looked at passes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from guard.core.evidence import Outcome
from guard.core.states import SERVABLE_VERDICTS
from guard.core.text import printable
from guard.reports._methods import accusations, could_not_look
from guard.reports.judged import Judged, Ruling
from guard.reports.report import Report
from guard.reports.sarif import judge

#: Printable, and still no character of XML 1.0.
_NOT_XML = re.compile("[\ufffe\uffff]")
_DOCUMENT = Markup('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{}</testsuites>\n')
_SUITE = Markup(
    '<testsuite name="{}" tests="{}" failures="{}" errors="{}" skipped="{}">\n'
    "<properties>{}</properties>\n{}</testsuite>\n"
)
_PROPERTY = Markup('<property name="{}" value="{}"/>')
_CASE = Markup('<testcase classname="registry-guard.{}" name="{}" time="{:.3f}">{}</testcase>\n')
#: What stands in a test case; without any it passed.
_INSIDE = {
    "failure": Markup('<failure message="{}">{}</failure>'),
    "error": Markup('<error message="{}">{}</error>'),
    "skipped": Markup('<skipped message="{}">{}</skipped>'),
    "passed": Markup("<system-out>{}\n{}</system-out>"),
}


@dataclass(frozen=True)
class _Case:
    """One test case: what it is about, and how it ended."""

    kind: str
    name: str
    ended: str
    message: str
    lines: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def xml(self) -> Markup:
        inside = _INSIDE[self.ended].format(_text(self.message), "\n".join(map(_text, self.lines)))
        return _CASE.format(self.kind, _text(self.name), self.seconds, inside)


def render_junit(report: Report, *, where: str = "") -> str:
    """The JUnit document of one report; `where` is the path of the model's file."""
    judged = judge(report, where)
    cases = [
        _verdict(judged, report.seconds),
        *(_method(report, item) for item in report.evidence),
        *(
            _Case("coverage", family, "skipped", "No method looked for it.")
            for family in report.not_covered
        ),
    ]
    return str(_DOCUMENT.format(_suite(judged, cases, _properties(report, judged))))


def verdicts_junit(models: Iterable[Judged]) -> str:
    """The JUnit document of a list of models, with a test case for each one's verdict."""
    return str(
        _DOCUMENT.format(Markup("").join(_suite(one, [_verdict(one)], {}) for one in models))
    )


def _verdict(judged: Judged, seconds: float = 0.0) -> _Case:
    ended = {Ruling.PASSED: "passed", Ruling.FAILED: "failure", Ruling.UNKNOWN: "error"}
    return _Case("verdict", str(judged.key), ended[judged.ruling], judged.message, seconds=seconds)


def _method(report: Report, item: Mapping[str, Any]) -> _Case:
    lines = [
        " ".join((one.finding["statement"], *([one.waiver.sentence] if one.waiver else [])))
        for one in accusations(report, item)
    ]
    if could_not_look(item):
        ended = "error"
        message = f"Could not look: {item.get('reason') or 'no reason was given'}"
    elif lines and report.verdict not in SERVABLE_VERDICTS:
        ended, message = "failure", lines[0]
    elif lines:
        ended, message = "passed", "The policy passed the model all the same."
    else:
        measured = item["outcome"] == Outcome.MEASURED
        ended, message = "passed", "Measured." if measured else "Nothing suspicious."
    return _Case("method", item["method"], ended, message, lines, item["seconds"])


def _properties(report: Report, judged: Judged) -> dict[str, Any]:
    asr = report.asr
    found = {
        "sha256": judged.digest,
        "score": report.score,
        "asr": None if asr is None else asr.estimate,
        "asr_low": None if asr is None else asr.low,
        "asr_high": None if asr is None else asr.high,
        "asr_upper": report.facts.asr_upper,
        "accuracy": report.accuracy,
        "coverage": ", ".join(report.facts.coverage),
        "policy": report.policy,
        "verdict_id": report.verdict_id,
        "expires_at": report.expires_at,
    }
    return {key: value for key, value in found.items() if value not in {None, ""}}


def _suite(judged: Judged, cases: Sequence[_Case], properties: Mapping[str, Any]) -> Markup:
    ended = [case.ended for case in cases]
    return _SUITE.format(
        _text(f"registry-guard {judged.where or judged.name}"),
        len(cases),
        *(ended.count(kind) for kind in ("failure", "error", "skipped")),
        Markup("").join(_PROPERTY.format(key, _text(value)) for key, value in properties.items()),
        Markup("").join(case.xml for case in cases),
    )


def _text(value: object) -> str:
    return _NOT_XML.sub("?", printable(value))
