"""Events are taken from those who may send them, recorded at once.

And every refusal is a problem document.
"""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from guard.api.problems import TYPE
from guard.events.auth import sign
from guard.events.parse import MAX_BODY_BYTES
from guard.flow.context import Guard
from guard.store import nominations, outbox, scans
from guard.store.rows import NominationRow, NominationState
from guard.store.session import reading, transaction
from tests.api.conftest import KEY, Clock, event


def recorded(guard: Guard) -> list[NominationRow]:
    with reading(guard.engine) as session:
        return nominations.list_recent(session, 100)


def counted(client: TestClient, outcome: str) -> int:
    page = client.get("/metrics", headers={"Authorization": "Bearer reader-token"}).text
    line = next(
        line
        for line in page.splitlines()
        if line.startswith(f'guard_webhook_total{{outcome="{outcome}"')
    )
    return int(float(line.split()[-1]))  # a value of Prometheus' format is a float


def refused(answer: Any, status: int, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"], body["type"]) == (
        status,
        status,
        code,
        TYPE + code,
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["detail"]


def test_an_event_is_recorded_and_answered_with_its_nominations(
    client: TestClient, guard: Guard
) -> None:
    answer = client.post("/events/s3", json=event("in/a+b/m.pt"))

    (row,) = recorded(guard)
    assert (answer.status_code, answer.json()) == (202, {"nominations": [row.id]})
    assert (row.key, row.version_id) == ("in/a b/m.pt", "v1")
    with reading(guard.engine) as session:
        (message,) = outbox.due(session, guard.now())
    assert (message.task, message.payload) == ("receive", {"nomination_id": row.id})


def test_a_test_event_is_taken_and_nominates_nothing(client: TestClient, guard: Guard) -> None:
    answer = client.post("/events/s3", json={"Event": "s3:TestEvent"})

    assert (answer.status_code, answer.json(), recorded(guard)) == (202, {"nominations": []}, [])


@pytest.mark.threat("A03")
@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic reader-token"])
def test_without_the_token_nothing_is_recorded_and_it_is_counted(
    anyone: TestClient, guard: Guard, header: str
) -> None:
    answer = anyone.post("/events/s3", json=event(), headers={"Authorization": header})

    refused(answer, 401, "unauthorised")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert recorded(guard) == []
    assert counted(anyone, "unauthorised") == 1


def send_signed(client: TestClient, clock: Clock, *, ahead: int = 0, body: bytes = b"") -> Any:
    body = body or json.dumps(event()).encode()
    headers = sign(
        body, KEY, clock.time.fromtimestamp(clock.time.timestamp() + ahead, clock.time.tzinfo)
    )
    return client.post("/events/s3", content=body, headers=headers)


def test_a_signed_event_is_taken_once(anyone: TestClient, guard: Guard, clock: Clock) -> None:
    assert send_signed(anyone, clock).status_code == 202
    refused(send_signed(anyone, clock), 401, "replayed_event")
    clock.pass_time(299)
    refused(send_signed(anyone, clock, ahead=-299), 401, "replayed_event")
    assert len(recorded(guard)) == 1


@pytest.mark.threat("A03")
@pytest.mark.parametrize("ahead", [-301, 301])
def test_old_and_future_dated_events_are_not_taken(
    anyone: TestClient, guard: Guard, clock: Clock, ahead: int
) -> None:
    refused(send_signed(anyone, clock, ahead=ahead), 401, "stale_event")
    assert recorded(guard) == []


def test_a_signature_lets_nobody_read(anyone: TestClient, clock: Clock) -> None:
    refused(anyone.get("/scans", headers=sign(b"", KEY, clock.time)), 401, "unauthorised")


@pytest.mark.threat("A03")
def test_an_event_of_another_bucket_makes_no_job(client: TestClient, guard: Guard) -> None:
    answer = client.post("/events/s3", json=event(bucket="somebody-elses"))

    assert answer.status_code == 202
    assert [row.state for row in recorded(guard)] == ["ignored"]
    with reading(guard.engine) as session:
        assert outbox.due(session, guard.now()) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "event_not_json"),
        (b"{", "event_not_json"),
        (b"{}", "unknown_event"),
        (b'{"Records": [{}]}', "event_incomplete"),
        (b"[" * 50_000, "event_not_json"),
        (b"\xff", "event_not_json"),
    ],
)
def test_what_is_no_event_is_refused(
    client: TestClient, guard: Guard, body: bytes, code: str
) -> None:
    refused(client.post("/events/s3", content=body), 400, code)
    assert recorded(guard) == []
    assert counted(client, "refused") == 1


def test_a_body_over_the_limit_is_refused_before_it_is_looked_at(client: TestClient) -> None:
    refused(client.post("/events/s3", content=b"x" * (MAX_BODY_BYTES + 1)), 413, "event_too_large")


def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        for _ in range(64):
            taken += 1 << 16
            yield b"x" * (1 << 16)

    refused(client.post("/events/s3", content=endless()), 413, "event_too_large")


def test_while_the_database_is_away_the_sender_may_repeat_the_same_signed_event(
    anyone: TestClient, guard: Guard, clock: Clock
) -> None:
    with transaction(guard.engine) as session:
        session.execute(text("ALTER TABLE nominations RENAME TO away"))

    answer = send_signed(anyone, clock)
    refused(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"

    with transaction(guard.engine) as session:
        session.execute(text("ALTER TABLE away RENAME TO nominations"))
    assert send_signed(anyone, clock).status_code == 202


def test_what_became_of_a_nomination_is_told(client: TestClient) -> None:
    (new,) = client.post("/events/s3", json=event("in/a/README.md")).json()["nominations"]

    answer = client.get(f"/nominations/{new}").json()

    assert (answer["state"], answer["scan_id"]) == ("ignored", None)
    assert "not vetted" in answer["reason"]
    refused(client.get("/nominations/none"), 404, "unknown_nomination")


def test_an_accepted_nomination_leads_to_its_scan(client: TestClient, guard: Guard) -> None:
    (new,) = client.post("/events/s3", json=event()).json()["nominations"]
    with transaction(guard.engine) as session:
        scans.insert(
            session,
            scan_id="s1",
            bucket="models",
            key="in/a/m.pt",
            version_id="v1",
            name="a",
            now=guard.now(),
        )
        nominations.settle(session, new, NominationState.ACCEPTED, scan_id="s1")

    answer = client.get(f"/nominations/{new}")

    assert (answer.json()["scan_id"], answer.headers["link"]) == (
        "s1",
        '</scans/s1>; rel="related"',
    )


@pytest.mark.threat("C13")
def test_what_cannot_be_shown_is_escaped_in_answers(client: TestClient) -> None:
    (new,) = client.post("/events/s3", json=event("in/%1B%5B31mred%00/m.pt")).json()["nominations"]

    answer = client.get(f"/nominations/{new}").json()

    assert answer["key"] == "in/\\x1b[31mred\\x00/m.pt"
    assert answer["state"] == "refused"
