"""Scans and verdicts are told to who holds the token; uploads can be nominated by hand."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guard.core.states import ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.core.waivers import Waiver
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.policy.rules import GateRule
from guard.store import artifacts, ledger, nominations, projects, reviews, scans
from guard.store.rows import ArtifactKind, Decided
from guard.store.session import reading, transaction
from tests.api.test_events import refused

DIGEST = "ab" * 32


def make_scan(guard: Guard, number: int = 0, **more: Any) -> str:
    new = f"{number:032x}"
    with transaction(guard.engine) as session:
        scans.insert(
            session,
            scan_id=new,
            bucket="models",
            key=f"in/{number}/m.pt",
            version_id="v1",
            name=f"m{number}",
            now=guard.now() + timedelta(seconds=number),
            **more,
        )
    return new


def make_verdict(guard: Guard, scan_id: str) -> str:
    with transaction(guard.engine) as session:
        artifacts.put(session, digest=DIGEST, size=3, kind=ArtifactKind.CANONICAL, now=guard.now())
        row = ledger.append(
            session,
            verdict_id="f" * 32,
            artifact=DIGEST,
            scan_id=scan_id,
            verdict=Verdict.HELD,
            envelope={
                "payload": "e30=",
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [],
            },
            issued_at=guard.now(),
            expires_at=guard.now() + timedelta(days=30),
            policy_digest="cd" * 32,
        )
        reviews.add(
            session,
            review_id="e" * 32,
            verdict_id=row.id,
            reviewer="rita",
            decision=Decided.REJECT,
            reason="no",
            now=guard.now(),
        )
    return row.id


@pytest.mark.threat("C23")
@pytest.mark.parametrize(
    "path", ["/scans", "/scans/x", "/verdicts/x", "/metrics", "/nominations/x"]
)
def test_nothing_is_told_without_the_token(anyone: TestClient, path: str) -> None:
    refused(anyone.get(path), 401, "unauthorised")


def test_scans_are_listed_newest_first_and_by_state(client: TestClient, guard: Guard) -> None:
    ids = [make_scan(guard, number) for number in range(3)]
    with transaction(guard.engine) as session:
        scans.move(session, ids[0], ScanState.DONE, guard.now())

    listed = client.get("/scans").json()["scans"]
    done = client.get("/scans", params={"state": "done"}).json()["scans"]

    assert [row["id"] for row in listed] == ids[::-1]
    assert [row["id"] for row in done] == ids[:1]
    assert [row["id"] for row in client.get("/scans?limit=1").json()["scans"]] == ids[2:]


@pytest.mark.threat("C15")
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "state=clean", "limit=1;DROP TABLE scans"]
)
def test_odd_queries_are_refused(client: TestClient, query: str) -> None:
    refused(client.get(f"/scans?{query}"), 400, "bad_request")


def test_a_scan_is_told_with_its_verdicts(client: TestClient, guard: Guard) -> None:
    new = make_scan(guard, 7, submitted_by="ann")
    verdict = make_verdict(guard, new)

    answer = client.get(f"/scans/{new}").json()

    assert (answer["id"], answer["state"], answer["submitted_by"]) == (new, "queued", "ann")
    assert [(row["id"], row["verdict"]) for row in answer["verdicts"]] == [(verdict, "held")]


def test_a_verdict_is_told_with_its_envelope_and_reviews(client: TestClient, guard: Guard) -> None:
    verdict = make_verdict(guard, make_scan(guard))

    answer = client.get(f"/verdicts/{verdict}").json()

    assert (answer["verdict"], answer["artifact_digest"], answer["seq"]) == ("held", DIGEST, 1)
    assert answer["envelope"]["payload"] == "e30="
    assert [(row["reviewer"], row["decision"]) for row in answer["reviews"]] == [("rita", "reject")]
    assert "servable" not in answer
    assert answer["gate"] is None


def test_a_verdict_of_a_gate_that_only_warns_says_so(client: TestClient, guard: Guard) -> None:
    warns = replace(guard, policy=replace(guard.policy, gate=GateRule(mode="warn")))
    scan_id = make_scan(guard)
    facts = VerdictFacts(verdict=Verdict.REJECTED, reasons=("A patch.",))
    with transaction(guard.engine) as session:
        artifacts.put(session, digest=DIGEST, size=3, kind=ArtifactKind.CANONICAL, now=guard.now())
        scan = scans.move(
            session, scan_id, ScanState.INSPECTING, guard.now(), canonical_digest=DIGEST
        )
        scan = scans.move(session, scan_id, ScanState.DECIDING, guard.now())
        verdict = write(warns, session, scan, DIGEST, facts, Terms())

    said = {"mode": "warn", "would_be": "rejected"}
    answer = client.get(f"/verdicts/{verdict}").json()
    assert (answer["verdict"], answer["gate"], answer["facts"]["gate"]) == ("rejected", said, said)
    assert client.get(f"/scans/{scan_id}").json()["verdicts"][0]["gate"] == said


def test_a_verdict_that_rests_on_a_waiver_says_so(client: TestClient, guard: Guard) -> None:
    until = guard.now() + timedelta(days=3)
    waiver = Waiver(
        waiver_id="w",
        artifact=DIGEST,
        method="patch_inversion",
        version=1,
        target=2,
        evidence=(),
        policy="cd" * 32,
        reason="by nature",
        owner="rita",
        approver="sam",
        until=until,
    )
    new = make_scan(guard)
    with transaction(guard.engine) as session:
        artifacts.put(session, digest=DIGEST, size=3, kind=ArtifactKind.CANONICAL, now=guard.now())
        facts = VerdictFacts(verdict=Verdict.CLEARED, reasons=("Fine.",), waivers=(waiver,))
        verdict = write(guard, session, scans.get(session, new), DIGEST, facts, Terms())

    answer = client.get(f"/verdicts/{verdict}").json()
    (shown,) = answer["waivers"]
    assert (shown["owner"], shown["approver"], shown["target"]) == ("rita", "sam", 2)
    assert answer["facts"]["waivers"] == answer["waivers"]
    assert answer["expires_at"] == until.isoformat().replace("+00:00", "Z")
    (row,) = client.get(f"/scans/{new}").json()["verdicts"]
    assert row["waivers"] == answer["waivers"]


def test_what_is_not_there_is_not_found(client: TestClient) -> None:
    refused(client.get("/scans/nothing"), 404, "unknown_scan")
    refused(client.get("/verdicts/nothing"), 404, "unknown_verdict")
    refused(client.get("/nowhere"), 404, "http_error")
    refused(client.delete("/scans"), 405, "http_error")


def test_an_ambiguous_start_of_an_id_is_a_conflict(client: TestClient, guard: Guard) -> None:
    make_scan(guard, 1)
    make_scan(guard, 2)

    refused(client.get("/scans/00000000"), 409, "ambiguous_scan")


@pytest.mark.threat("C13")
def test_names_of_uploaders_are_escaped(client: TestClient, guard: Guard) -> None:
    new = make_scan(guard, 1, submitted_by="\x1b[2J\u202eann")

    assert client.get(f"/scans/{new}").json()["submitted_by"] == "\\x1b[2J\\u202eann"


def test_an_object_can_be_submitted_by_name(client: TestClient, guard: Guard) -> None:
    answer = client.post(
        "/scans", json={"bucket": "models", "key": "in/a+b/m.pt", "version_id": "v1"}
    )

    assert answer.status_code == 202
    with reading(guard.engine) as session:
        row = nominations.get(session, answer.json()["id"])
    assert (row.key, row.version_id, row.source) == ("in/a+b/m.pt", "v1", "submit")
    assert answer.headers["location"] == f"/nominations/{row.id}"


@pytest.mark.parametrize(
    "body",
    [
        {"bucket": "other", "key": "k.pt"},
        {"bucket": "models", "key": "a/README.md"},
        {"bucket": "models", "key": "a\x00"},
    ],
)
def test_a_submission_that_leads_nowhere_says_why(client: TestClient, body: dict[str, str]) -> None:
    refused(client.post("/scans", json=body), 422, "not_nominated")


@pytest.mark.threat("C15")
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"bucket": "models"},
        {"bucket": "models", "key": ""},
        [],
        "x",
        {"bucket": "models", "key": "k", "state": "done"},
        {"bucket": 1, "key": "k"},
        {"bucket": "models", "key": "k" * 1025},
    ],
)
def test_malformed_submissions_are_refused(client: TestClient, body: Any) -> None:
    refused(client.post("/scans", json=body), 400, "bad_request")


def test_a_submission_needs_the_token(anyone: TestClient, guard: Guard) -> None:
    refused(anyone.post("/scans", json={"bucket": "models", "key": "k.pt"}), 401, "unauthorised")
    with reading(guard.engine) as session:
        assert nominations.list_recent(session) == []


def test_a_submission_over_a_projects_limit_gets_429_and_a_time(
    guard: Guard, client: TestClient
) -> None:
    made = client.post("/projects", json={"name": "a", "prefix": "models/in", "bytes_a_day": 1})
    assert made.status_code == 201
    assert made.headers["location"] == "/projects/a"
    assert client.post("/projects", json={"name": "a", "prefix": "models/b"}).status_code == 409
    with transaction(guard.engine) as session:
        scans.insert(
            session,
            scan_id="1" * 32,
            bucket="models",
            key="in/a/m.pt",
            version_id="1",
            name="a",
            now=guard.now(),
        )
        projects.record_upload(session, "a", "1" * 32, 1, guard.now())

    answer = client.post("/scans", json={"bucket": "models", "key": "in/b/m.pt"})

    assert (answer.status_code, answer.json()["code"]) == (429, "project_quota")
    assert answer.headers["retry-after"] == "86400"
    found = client.get("/projects/a").json()
    assert found["used"] == {"scans": 1, "bytes": 1, "open": 1}
    assert client.get("/projects/b").json()["code"] == "unknown_project"
