"""The API takes the same tokens as the command line, and each role reads or submits as it may."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.context import Guard
from tests import people
from tests.api.conftest import TOKEN, Clock

READING = ["/scans", "/metrics"]


def hold(client: TestClient, token: str) -> None:
    client.headers["Authorization"] = f"Bearer {token}"


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("path", READING)
def test_every_role_reads(role: Role, path: str, anyone: TestClient, guard: Guard) -> None:
    hold(anyone, people.give(guard, "bob", role))

    assert anyone.get(path).status_code == 200


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("folder", "own"), [("bob", True), ("bobby", False)])
def test_operators_submit_anything_and_uploaders_what_is_theirs(
    role: Role, folder: str, own: bool, anyone: TestClient, guard: Guard
) -> None:
    hold(anyone, people.give(guard, "bob", role, prefixes=["models/in/bob"]))
    answer = anyone.post("/scans", json={"bucket": "models", "key": f"in/{folder}/m.pt"})

    if role is Role.OPERATOR or (role is Role.UPLOADER and own):
        assert answer.status_code == 202
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("path", READING)
def test_wrong_expired_and_revoked_tokens_are_refused(
    path: str, anyone: TestClient, guard: Guard, clock: Clock
) -> None:
    token = people.give(guard, "bob", Role.VIEWER, days=1)
    root = people.who(guard, "ops", Role.OPERATOR)
    gone = people.give(guard, "gone", Role.VIEWER)
    hold(anyone, gone)
    assert anyone.get(path).status_code == 200
    tokens.revoke(guard, root, "gone")
    for wrong in (gone, gone, f"{token[:-1]}?", f"{token}x", "", "x" * 10_000):
        hold(anyone, wrong)
        answer = anyone.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")
    anyone.headers["Authorization"] = f"Basic {token}"
    assert anyone.get(path).status_code == 401
    hold(anyone, token)
    assert anyone.get(path).status_code == 200
    clock.pass_time(timedelta(days=1).total_seconds())
    assert anyone.get(path).status_code == 401


def test_the_webhook_token_still_reads_and_submits_beside_principals(
    client: TestClient, guard: Guard
) -> None:
    people.give(guard, "bob", Role.VIEWER)

    assert client.headers["Authorization"] == f"Bearer {TOKEN}"
    assert client.get("/scans").status_code == 200
    answer = client.post("/scans", json={"bucket": "models", "key": "in/a/m.pt"})
    assert answer.status_code == 202


def test_a_principals_token_sends_no_events(anyone: TestClient, guard: Guard) -> None:
    """Events come from the store, which has the webhook token or the key of signatures."""
    hold(anyone, people.give(guard, "bob", Role.OPERATOR))

    assert anyone.post("/events/s3", json={}).status_code == 401
