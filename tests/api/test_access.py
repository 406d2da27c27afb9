"""Nobody without a token has a byte of a body read, and nobody at all an unbounded one."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from guard.api.access import MAX_REQUEST_BYTES, OPEN, SHORT, BoundedRoute
from guard.api.app import ROUTES, create_app
from guard.events.parse import MAX_BODY_BYTES
from guard.flow.context import Guard
from tests.api.conftest import KEY, TOKEN, Clock
from tests.api.test_events import refused

OWN = [route for part in ROUTES for route in part.router.routes if isinstance(route, APIRoute)]
EACH = sorted({(method, route.path) for route in OWN for method in route.methods})
#: Those that take a bearer token, and those of the console, which ask for a browser's session.
LOGOUT = "/oidc/backchannel-logout"
PATHS = [(method, path) for method, path in EACH if not path.startswith("/console/")]
PAGES = [(method, path) for method, path in EACH if path.startswith("/console/")]


def ask(app: Any, method: str, path: str, headers: dict[str, str], body: Iterator[bytes]) -> int:
    """The status of an answer to a request whose body comes piece by piece."""
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        part = next(body, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "server": ("testserver", 80),
        "client": ("testclient", 1),
    }
    asyncio.run(app(scope, receive, send))
    return seen[0]


def pieces(taken: list[int], count: int = 100) -> Iterator[bytes]:
    for number in range(count):
        taken.append(number)
        yield b" " * 65_536


@pytest.mark.parametrize(("method", "path"), [*PATHS, ("POST", "/nowhere"), ("PUT", "/scans")])
def test_no_route_reads_a_body_before_it_knows_who_sends_it(
    guard: Guard, method: str, path: str
) -> None:
    taken: list[int] = []

    status = ask(create_app(guard), method, re.sub(r"\{\w+\}", "x", path), {}, pieces(taken))

    if path in OPEN:
        assert status == 413
        assert len(taken) <= 2
    elif path == LOGOUT:  # without an identity provider there is nothing to check, nor to read
        assert (status, taken) == (404, [])
    else:
        assert (status, taken) == (401, [])


@pytest.mark.parametrize(("method", "path"), PAGES)
def test_no_page_of_the_console_reads_a_body_of_an_unknown_sender(
    guard: Guard, method: str, path: str
) -> None:
    taken: list[int] = []

    status = ask(create_app(guard), method, path, {}, pieces(taken))

    if method == "GET" and path.startswith("/console/login"):
        assert (status, len(taken)) == (413, 2)
    else:
        assert (status, taken) == (303 if method == "GET" else 403, [])


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_no_route_takes_more_than_its_bound(guard: Guard, method: str, path: str) -> None:
    taken: list[int] = []
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    status = ask(create_app(guard), method, re.sub(r"\{\w+\}", "x", path), headers, pieces(taken))

    if path == LOGOUT:  # `test_sign_off.py` has a provider, and the bound
        assert (status, taken) == (404, [])
        return
    bound = MAX_BODY_BYTES if path == "/events/s3" else MAX_REQUEST_BYTES
    assert status == 413
    assert len(taken) == bound // 65_536 + 1


def test_a_body_that_states_too_much_is_refused_unread(guard: Guard) -> None:
    for length in (str(MAX_REQUEST_BYTES + 1), "9" * 30, "-1", "x"):
        taken: list[int] = []
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": length}

        assert ask(create_app(guard), "POST", "/scans", headers, pieces(taken)) == 413
        assert taken == []


@pytest.mark.parametrize(
    ("stamp", "signature"), [("now", ""), ("x", "sha256=0"), ("1", "sha256=0"), ("", "sha256=0")]
)
def test_an_event_that_cannot_be_signed_freshly_is_refused_unread(
    guard: Guard, clock: Clock, stamp: str, signature: str
) -> None:
    given = {
        "X-Guard-Timestamp": str(int(clock().timestamp())) if stamp == "now" else stamp,
        "X-Guard-Signature": signature,
    }
    taken: list[int] = []
    headers = {name: value for name, value in given.items() if value}

    assert KEY
    assert ask(create_app(guard), "POST", "/events/s3", headers, pieces(taken)) == 401
    assert taken == []


def test_json_is_parsed_outside_the_event_loop_unless_it_is_short(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[str] = []
    loads = json.loads

    def watched(data: Any) -> Any:
        where.append(threading.current_thread().name)
        return loads(data)

    monkeypatch.setattr("guard.api.access.json.loads", watched)
    kind = {"Content-Type": "application/json"}
    client.post("/scans", content=b'{"bucket": 1}' + b" " * SHORT, headers=kind)
    long, where[:] = list(where), []
    client.post("/scans", content=b'{"bucket": 1}', headers=kind)

    assert [name for name in long if "AnyIO worker" in name]
    assert not [name for name in where if "AnyIO worker" in name]
    assert all(isinstance(route, BoundedRoute) for route in OWN)
    assert all(isinstance(part.router, APIRouter) for part in ROUTES)


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, b"\xff", b"1" * 60_000])
def test_hostile_json_is_a_bad_request(client: TestClient, body: bytes) -> None:
    answer = client.post("/scans", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert len(answer.content) < 10_000


def test_an_answer_about_many_faults_stays_short(client: TestClient) -> None:
    body = {f"k{number}": 0 for number in range(4000)}

    answer = client.post("/scans", json=body)

    refused(answer, 400, "bad_request")
    assert len(answer.content) < 10_000


def test_the_page_of_the_api_needs_no_other_host_and_says_how_to_authorise(
    anyone: TestClient,
) -> None:
    answer = anyone.get("/docs")

    assert "Authorization: Bearer" in answer.text
    assert "guard token create" in answer.text
    assert "://" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.threat("C23")
def test_the_description_of_the_api_needs_a_token_and_names_it(
    anyone: TestClient, guard: Guard
) -> None:
    refused(anyone.get("/openapi.json"), 401, "unauthorised")
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert anyone.get(path).status_code == 401

    found = anyone.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()

    assert found["security"] == [{"token": []}]
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
