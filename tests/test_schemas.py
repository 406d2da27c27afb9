"""Every JSON document about a verdict keeps to the published schemas, and these to the code."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.core.states import Verdict
from guard.flow import run_stage
from guard.flow.report import report_for
from guard.settings import Secret
from tests import schemas
from tests.attest.making import a_statement
from tests.flow.place import Place, finding
from tests.reports import samples
from tests.schemas import faults

GOLDEN = Path(__file__).parent / "golden"


def predicate_of(envelope: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(envelope["payload"]))["predicate"]


@pytest.mark.parametrize("name", schemas.MADE)
def test_a_published_schema_is_what_the_code_makes(name: str) -> None:
    assert (schemas.FOLDER / name).read_text() == schemas.text_of(name), (
        "run `python -m tests.schemas`"
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_report_with_nothing_but_a_verdict_keeps_to_the_schema(verdict: Verdict) -> None:
    assert faults("report.schema.json", samples.bare(verdict).to_dict()) == []


@pytest.mark.row(48)
def test_reports_with_everything_in_them_keep_to_the_schema() -> None:
    assert faults("report.schema.json", samples.rejected().to_dict()) == []
    assert faults("report.schema.json", samples.purified().to_dict()) == []
    assert faults("report.schema.json", samples.sifted().to_dict()) == []
    assert faults("report.schema.json", samples.retrained().to_dict()) == []


def test_a_statement_keeps_to_the_schema() -> None:
    assert faults("verdict-predicate.schema.json", a_statement()["predicate"]) == []
    repair = samples.purified().facts.purification
    repaired = a_statement(verdict=Verdict.PURIFIED, parent="e" * 64, purification=repair)
    assert faults("verdict-predicate.schema.json", repaired["predicate"]) == []
    proved = a_statement(
        verdict=Verdict.PURIFIED,
        parent="e" * 64,
        purification=samples.sifted().facts.purification,
    )
    assert faults("verdict-predicate.schema.json", proved["predicate"]) == []
    assert proved["predicate"]["purification"]["suspects"]


@pytest.mark.parametrize("name", json.loads((GOLDEN / "envelopes.json").read_text()))
def test_what_earlier_releases_signed_keeps_to_the_schema(name: str) -> None:
    signed = json.loads((GOLDEN / "envelopes.json").read_text())[name]

    assert faults("verdict-predicate.schema.json", predicate_of(signed["envelope"])) == []


def test_the_services_report_statement_and_answer_keep_to_the_schemas(tmp_path: Path) -> None:
    place = Place(tmp_path)
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=True))
    assert run_stage.work(place.guard, "decide", scan_id)
    (row,) = place.verdicts(scan_id)

    assert faults("report.schema.json", report_for(place.guard, scan_id).to_dict()) == []
    assert faults("verdict-predicate.schema.json", predicate_of(dict(row.envelope))) == []
    settings = replace(place.guard.settings, webhook_token=Secret("t"))
    with TestClient(create_app(replace(place.guard, settings=settings))) as client:
        client.headers["Authorization"] = "Bearer t"
        answer = client.get(f"/verdicts/{row.id}").json()
    assert faults("verdict.schema.json", answer) == []
    assert answer["facts"]["verdict"] == "rejected"
    assert answer["facts"]["asr"]["target"] == 2
    assert answer["facts"]["vetted_dtype"] == "float32"


def test_a_cleared_models_natural_trigger_is_nowhere_its_asr(tmp_path: Path) -> None:
    place = Place(tmp_path)
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)
    (row,) = place.verdicts(scan_id)
    settings = replace(place.guard.settings, webhook_token=Secret("t"))
    with TestClient(create_app(replace(place.guard, settings=settings))) as client:
        client.headers["Authorization"] = "Bearer t"
        answer = client.get(f"/verdicts/{row.id}").json()
    report = report_for(place.guard, scan_id).to_dict()

    assert row.verdict is Verdict.CLEARED
    for facts in (predicate_of(dict(row.envelope)), answer["facts"], report):
        assert facts["asr"] is None
        assert facts["natural_trigger"]["estimate"] == pytest.approx(0.95)
    assert faults("report.schema.json", report) == []
    assert faults("verdict.schema.json", answer) == []


def test_a_missing_field_a_wrong_type_and_an_unknown_field_are_noticed() -> None:
    document = samples.rejected().to_dict()

    for broken in (
        {key: value for key, value in document.items() if key != "asr_upper"},
        {**document, "score": "high"},
        {**document, "surprise": 1},
    ):
        assert len(faults("report.schema.json", broken)) == 1
