"""JUnit documents: valid by the Jenkins schema, and never a pass where nobody looked."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from guard.core.states import Verdict
from guard.reports.judged import Judged
from guard.reports.junit import render_junit, verdicts_junit
from guard.reports.report import Report
from tests.reports.official import junit_faults
from tests.reports.samples import bare, purified, rejected, with_facts
from tests.reports.test_sarif import HOSTILE

ENDED = ("failure", "error", "skipped")


def cases(document: str) -> dict[str, str]:
    """How each test case of a valid document ended, by kind and name."""
    assert junit_faults(document) == []
    root = ET.fromstring(document)
    for suite in root:
        for attribute, tag in (("failures", "failure"), ("errors", "error")):
            assert int(suite.attrib[attribute]) == len(suite.findall(f".//{tag}"))
    return {
        f"{case.attrib['classname'].rpartition('.')[2]} {case.attrib['name']}": next(
            (tag for tag in ENDED if case.find(tag) is not None), "passed"
        )
        for case in root.iter("testcase")
    }


def of(report: Report) -> dict[str, str]:
    return cases(render_junit(report))


def test_the_official_schema_finds_a_fault_in_a_wrong_document() -> None:
    assert junit_faults(render_junit(rejected()).replace(' tests="', ' count="'))


@pytest.mark.row(49)
@pytest.mark.parametrize(
    ("verdict", "ended"),
    [
        (Verdict.CLEARED, "passed"),
        (Verdict.PURIFIED, "passed"),
        (Verdict.REJECTED, "failure"),
        (Verdict.HELD, "failure"),
        (Verdict.INCONCLUSIVE, "error"),
        (Verdict.UNVETTABLE, "error"),
    ],
)
def test_a_verdict_is_a_test_case_also_where_no_method_ran(verdict: Verdict, ended: str) -> None:
    found = of(bare(verdict))

    assert found.pop(f"verdict {verdict}") == ended
    assert set(found.values()) == {"skipped"}  # families that nobody looked for


def test_an_accusation_fails_and_a_method_that_could_not_look_is_an_error() -> None:
    found = of(rejected())

    assert found["method patch_inversion"] == "failure"
    assert found["method spectral"] == "error"
    assert found["method clean_accuracy"] == "passed"
    assert found["coverage blend"] == "skipped"
    assert "coverage patch" not in found
    assert 'name="asr_high" value="0.981"' in render_junit(rejected())


def test_what_the_policy_passed_does_not_fail_and_shows_the_finding() -> None:
    passed = with_facts(rejected(), verdict=Verdict.CLEARED)

    assert of(passed)["method patch_inversion"] == "passed"
    assert "A patch of 8.9 pixels" in render_junit(passed)
    assert of(purified())["method patch_inversion"] == "passed"


def test_a_pass_that_has_expired_is_an_error() -> None:
    assert of(bare(Verdict.CLEARED, expired=True))["verdict expired"] == "error"


def test_hostile_text_is_escaped_and_no_control_character_is_left() -> None:
    text = HOSTILE + "\ufffe"
    report = replace(with_facts(rejected(), reasons=(text,)), name=text)
    document = render_junit(report, where='/a"b/<c>')

    assert of(report)["verdict rejected"] == "failure"
    assert junit_faults(document) == []
    assert not any(char in document for char in ("\x1b", "\x00", "\u202e", "\ufffe", "<b>"))


def test_a_list_of_scans_has_a_suite_each_and_nothing_that_runs_passes() -> None:
    document = verdicts_junit(
        [
            Judged(name="a", digest="a" * 64, verdict=Verdict.CLEARED, code=0),
            Judged(name="b", digest="", verdict=None, code=2),
        ]
    )

    assert cases(document) == {"verdict cleared": "passed", "verdict pending": "error"}
    assert junit_faults(verdicts_junit([])) == []
