"""Browsers sign in by a form and come by a cookie, which opens the console and nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from guard.api._attempts import Attempts
from guard.api.app import create_app
from guard.api.sessions import COOKIE, form_of, safe_next
from guard.core.roles import Act, Role
from guard.flow import tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.flow.sessions import close_session, find_session, open_session
from guard.settings import Secret
from guard.store import acts
from guard.store.session import make_engine, reading
from tests import people
from tests.api.conftest import TOKEN, Clock

OURS = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def browser(guard: Guard) -> Iterator[TestClient]:
    """A browser on this machine, on an application with two pages of the console."""
    app = create_app(guard)

    @app.get("/console/who")
    def who(request: Request) -> dict[str, str]:
        return {"name": request.state.principal.name, "csrf": request.state.session.csrf}

    @app.post("/console/change")
    async def change(request: Request) -> dict[str, str]:
        return {**await form_of(request)}

    with TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
        yield client


def send(browser: TestClient, path: str, headers: dict[str, str] | None = None, **form: str) -> Any:
    return browser.post(path, content=urlencode(form), headers={**FORM, **(headers or OURS)})


def sign_in(browser: TestClient, token: str = TOKEN) -> str:
    """Sign in; returns the session's `csrf`."""
    assert send(browser, "/console/login", token=token).status_code == 303
    return str(browser.get("/console/who").json()["csrf"])


def test_whoever_is_not_signed_in_is_sent_to_the_login_and_back(browser: TestClient) -> None:
    sent = browser.get("/console/who?scan=1")
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "/console/login?next=/console/who%3Fscan%3D1",
    )

    shown = browser.get(sent.headers["location"])
    assert 'value="/console/who?scan=1"' in shown.text
    assert "default-src 'none'" in shown.headers["content-security-policy"]

    back = send(browser, "/console/login", token=TOKEN, next="/console/who?scan=1")
    assert (back.status_code, back.headers["location"]) == (303, "/console/who?scan=1")
    assert browser.get("/console/who?scan=1").json()["name"] == "api"
    assert browser.get("/console/login").headers["location"] == "/console/"


def test_a_part_of_a_page_makes_the_whole_page_go_to_the_login(browser: TestClient) -> None:
    answer = browser.get("/console/who", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (
        401,
        "/console/login?next=/console/who",
    )


def test_the_cookie_is_for_this_site_alone_and_out_of_reach_of_scripts(guard: Guard) -> None:
    for address, secure in (
        ("http://127.0.0.1:8080", False),
        ("http://guard.example", True),
        ("https://guard.example", True),
    ):
        with TestClient(create_app(guard), base_url=address, follow_redirects=False) as client:
            cookie = send(client, "/console/login", {"Origin": address}, token=TOKEN).headers[
                "set-cookie"
            ]
        assert cookie.startswith(f"{COOKIE}=")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert ("Secure" in cookie) is secure


def test_the_database_holds_neither_the_cookie_nor_the_csrf(
    guard: Guard, browser: TestClient
) -> None:
    csrf = sign_in(browser)
    secret = browser.cookies[COOKIE].partition(".")[2]

    with reading(guard.engine) as session:
        kept = str(session.connection().exec_driver_sql("SELECT * FROM browser_sessions").all())
        done = str(acts.walk(session, 0, 100))

    assert secret not in kept + done
    assert csrf not in kept + done


def test_the_cookie_opens_no_route_outside_the_console(browser: TestClient) -> None:
    sign_in(browser)
    for path in ("/scans", "/metrics", "/openapi.json", "/console", "/consoles/who"):
        assert browser.get(path).status_code == 401, path


def test_a_bearer_token_opens_no_page_of_the_console(browser: TestClient) -> None:
    answer = browser.get("/console/who", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OURS, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"X-Other": "1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1:8080"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8080"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
    ],
)
def test_only_a_page_of_ours_may_send_a_form(
    browser: TestClient, headers: dict[str, str], status: int
) -> None:
    csrf = sign_in(browser)
    assert send(browser, "/console/change", headers, csrf=csrf, a="1").status_code == status
    assert send(browser, "/console/login", headers, token="no").status_code == (
        401 if status == 200 else 403
    )


def test_the_address_of_a_proxy_is_ours_once_it_is_set(guard: Guard) -> None:
    behind = {"Origin": "https://guard.example", "Sec-Fetch-Site": "same-origin"}
    public = replace(guard, settings=replace(guard.settings, public_url="https://guard.example/"))
    for which, status in ((guard, 403), (public, 303)):
        with TestClient(create_app(which), base_url="http://10.0.0.1", follow_redirects=False) as c:
            assert send(c, "/console/login", behind, token=TOKEN).status_code == status


def test_a_form_carries_the_csrf_of_its_own_session(guard: Guard, browser: TestClient) -> None:
    csrf = sign_in(browser)
    other = open_session(guard, authenticate(guard, TOKEN)).csrf

    assert send(browser, "/console/change", csrf=csrf, a="é").json()["a"] == "é"
    by_header = {**OURS, "csrf": csrf}
    assert browser.post("/console/change", headers=by_header).status_code == 200
    for wrong in ("", other, csrf[:-1], "é"):
        assert send(browser, "/console/change", csrf=wrong).json()["code"] == "cross_site"
    assert browser.post("/console/change", json={"csrf": csrf}, headers=OURS).status_code == 403
    assert browser.request("DELETE", "/console/change", headers=OURS).status_code == 403


@pytest.mark.parametrize("body", [b"a=%ff", b"\xff", b"&".join([b"a=1"] * 300)])
def test_a_form_that_cannot_be_read_is_refused(browser: TestClient, body: bytes) -> None:
    sign_in(browser)
    answer = browser.post("/console/change", content=body, headers={**FORM, **OURS})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_form")


def test_a_form_without_a_session_is_refused(browser: TestClient) -> None:
    assert send(browser, "/console/change").json()["code"] == "sign_in_needed"


def test_every_wrong_token_gets_the_same_answer_and_soon_none(
    guard: Guard, browser: TestClient, clock: Clock
) -> None:
    expired = people.give(guard, "ann", Role.VIEWER, days=1)
    revoked = people.give(guard, "bob", Role.VIEWER)
    tokens.revoke(guard, authenticate(guard, TOKEN), "bob")
    clock.pass_time(2 * 86400)
    answers = {
        send(browser, "/console/login", token=token).text
        for token in ("", "x", "<script>", expired, revoked, expired[:-1] + "x", "é")
    }
    assert len(answers) == 1
    assert "<script>" not in answers.pop()

    many = [send(browser, "/console/login", token="x").status_code for _ in range(14)]
    assert many == [401] * 13 + [429]
    slowed = send(browser, "/console/login", token=TOKEN)
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "60")
    clock.pass_time(61)
    assert send(browser, "/console/login", token=TOKEN).status_code == 303


def test_signing_out_ends_the_session_and_both_are_acts_of_the_principal(
    guard: Guard, browser: TestClient
) -> None:
    token = people.give(guard, "ann", Role.REVIEWER)
    csrf, cookie = sign_in(browser, token), browser.cookies[COOKIE]

    out = send(browser, "/console/logout", csrf=csrf)
    assert (out.status_code, out.headers["location"]) == (303, "/console/login")
    assert COOKIE not in browser.cookies

    browser.cookies.set(COOKIE, cookie)
    assert browser.get("/console/who").status_code == 303
    with reading(guard.engine) as session:
        found = [(row.act, row.principal, row.token_id) for row in acts.walk(session, 0, 100)]
    token_id = token.split("_")[1]
    assert found[-2:] == [(Act.SIGN_IN, "ann", token_id), (Act.SIGN_OUT, "ann", token_id)]
    close_session(guard, cookie)  # once is enough


def test_a_session_ends_with_its_token(guard: Guard) -> None:
    ann = authenticate(guard, people.give(guard, "ann", Role.REVIEWER))
    cookie = open_session(guard, ann).cookie
    found = find_session(guard, cookie)
    assert found is not None
    assert found.principal == ann

    tokens.revoke(guard, authenticate(guard, TOKEN), "ann")
    assert find_session(guard, cookie) is None


def test_the_operators_session_ends_when_the_webhooks_token_changes(guard: Guard) -> None:
    cookie = open_session(guard, authenticate(guard, TOKEN)).cookie
    assert find_session(guard, cookie) is not None
    for changed in ("another", ""):
        settings = replace(guard.settings, webhook_token=Secret(changed))
        assert find_session(replace(guard, settings=settings), cookie) is None


def test_a_session_ends_after_its_time_and_after_idling(guard: Guard, clock: Clock) -> None:
    cookie = open_session(guard, authenticate(guard, TOKEN)).cookie
    for _ in range(9):
        clock.pass_time(50 * 60)
        assert find_session(guard, cookie) is not None
    clock.pass_time(31 * 60)
    assert find_session(guard, cookie) is None, "8 hours are over"

    cookie = open_session(guard, authenticate(guard, TOKEN)).cookie
    clock.pass_time(61 * 60)
    assert find_session(guard, cookie) is None, "an hour without a request"


@pytest.mark.parametrize("cookie", ["", "x", f"{'0' * 16}.{'x' * 43}", "é"])
def test_a_made_up_cookie_is_nobodys(guard: Guard, cookie: str) -> None:
    assert find_session(guard, cookie) is None
    real = open_session(guard, authenticate(guard, TOKEN)).cookie
    assert find_session(guard, f"{real[:-1]}{'a' if real[-1] != 'a' else 'b'}") is None


def test_a_login_that_showed_no_token_opens_no_session(guard: Guard) -> None:
    with pytest.raises(Exception, match="needs a token"):
        open_session(guard, Principal(name="login", role=None))


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/console/models/a?b=c", "/console/models/a?b=c"),
        ("", "/console/"),
        ("https://evil.example/", "/console/"),
        ("//evil.example/console/", "/console/"),
        ("/console//evil.example", "/console/"),
        ("/console/\\evil.example", "/console/"),
        ("/console/\r\nSet-Cookie: a=b", "/console/"),
        ("/scans", "/console/"),
        ("/console/login?next=/console/login", "/console/"),
        ("/console/logout", "/console/"),
        ('/console/"><script>', "/console/%22%3E%3Cscript%3E"),
        ("/console/é", "/console/"),
    ],
)
def test_signing_in_leads_to_a_page_of_the_console_alone(wanted: str, target: str) -> None:
    assert safe_next(wanted) == target


def test_while_the_database_is_away_nobody_signs_in_and_nobody_is_blamed(
    guard: Guard, tmp_path: Path
) -> None:
    away = replace(guard, engine=make_engine(f"sqlite:///{tmp_path / 'empty.db'}"))
    with TestClient(create_app(away), base_url=OURS["Origin"], follow_redirects=False) as client:
        answer = send(client, "/console/login", token=TOKEN)
    away.engine.dispose()
    assert (answer.status_code, "database does not answer" in answer.text) == (503, True)


def test_a_flood_of_addresses_takes_no_more_memory() -> None:
    attempts = Attempts(most=1, capacity=2)
    for address in ("a", "b", "c"):
        attempts.failed(address, 0.0)
    assert [attempts.wait(address, 1.0) for address in ("a", "b", "c")] == [0.0, 59.0, 59.0]
