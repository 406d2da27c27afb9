"""Whoever signs out at the identity provider is signed out here, by its signature alone."""

from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import ECKey

from guard.api.app import create_app
from guard.api.sessions import COOKIE
from guard.api.sign_off import MOST
from guard.core.roles import Act
from guard.flow.context import Guard
from guard.flow.principals import Unauthorised, permit
from guard.flow.sessions import find_session
from guard.store import acts
from guard.store.session import reading
from tests.api.conftest import Clock
from tests.api.provider import CLIENT, HERE, OpenIdProvider, leave

PATH = "/oidc/backchannel-logout"
EVENTS: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NUMBERS = count()


@pytest.fixture
def browser(known: Guard) -> Iterator[TestClient]:
    with TestClient(create_app(known), base_url=HERE, follow_redirects=False) as client:
        yield client


def sign_on(browser: TestClient, provider: OpenIdProvider, subject: str, sid: str | None) -> str:
    """The cookie of a person who signs on in a browser of their own."""
    provider.claims = {"sub": subject, "preferred_username": f"p{subject}", "sid": sid}
    browser.cookies.clear()
    assert browser.get(leave(browser)).status_code == 200
    return str(browser.cookies[COOKIE])


def claims(provider: OpenIdProvider, **changed: Any) -> dict[str, Any]:
    """A logout token's claims; None leaves one out."""
    now = int(provider.now().timestamp())
    whole = {
        "iss": provider.issuer,
        "aud": CLIENT,
        "iat": now,
        "exp": now + 120,
        "jti": f"number {next(NUMBERS)}",
        "events": EVENTS,
        **changed,
    }
    return {name: value for name, value in whole.items() if value is not None}


def send(browser: TestClient, token: str) -> Any:
    """What the provider does: no cookie, no token of ours, no origin."""
    browser.cookies.clear()
    return browser.post(PATH, content=urlencode({"logout_token": token}), headers=FORM)


def ended(guard: Guard, *cookies: str) -> list[bool]:
    return [find_session(guard, cookie) is None for cookie in cookies]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"sub": "1"}, [True, True, True, False]),
        ({"sid": "a"}, [True, False, False, False]),
        ({"sub": "1", "sid": "a"}, [True, False, True, False]),  # the third may be of it
        ({"sub": "2", "sid": "a"}, [False, False, False, False]),
        ({"sub": "9"}, [False, False, False, False]),
        ({"sid": "z"}, [False, False, False, False]),
    ],
)
def test_a_logout_token_ends_the_sessions_that_it_names(
    known: Guard,
    browser: TestClient,
    provider: OpenIdProvider,
    named: dict[str, str],
    expected: list[bool],
) -> None:
    opened = [("1", "a"), ("1", "b"), ("1", None), ("2", "c")]
    cookies = [sign_on(browser, provider, *one) for one in opened]

    answer = send(browser, provider.sign(claims(provider, **named), typ="logout+jwt"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert ended(known, *cookies) == expected


def test_the_end_is_an_act_of_the_person_and_ends_the_rights_of_the_session(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    cookie = sign_on(browser, provider, "1", "a")
    before = find_session(known, cookie)
    assert before is not None

    assert send(browser, provider.sign(claims(provider, sub="1", sid="a"))).status_code == 200

    with reading(known.engine) as session:
        last = acts.walk(session, 0, 100)[-1]
        with pytest.raises(Unauthorised):  # also of what was ordered before and waits for a worker
            permit(known, session, before.principal, Act.APPROVE)
    assert (last.act, last.principal, last.subject) == (Act.SIGN_OUT, "p1", "p1")
    assert last.facts["sessions"] == [cookie.partition(".")[0]]
    assert set(last.facts["ended"]) == {one.token_id for one in before.principal.credentials}


def test_a_logout_token_counts_once(
    known: Guard, browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    token = provider.sign(claims(provider, sub="1"))
    assert send(browser, token).status_code == 200
    cookie = sign_on(browser, provider, "1", "a")
    clock.pass_time(30)

    again = send(browser, token)

    assert (again.status_code, again.json()["code"]) == (400, "logout_replayed")
    assert ended(known, cookie) == [False]


WRONG: list[dict[str, Any]] = [
    {"iss": "http://127.0.0.1:1"},
    {"iss": None},
    {"aud": "another"},
    {"aud": [CLIENT, "another"]},
    {"aud": None},
    {"iat": 1_900_000_000},
    {"iat": 1_700_000_000},  # so long ago that its id may be forgotten, whatever its end
    {"iat": None},
    {"iat": "now"},
    {"exp": 1_700_000_000},
    {"exp": None},
    {"jti": None},
    {"jti": ""},
    {"jti": "x" * 256},
    {"events": None},
    {"events": {}},
    {"events": "http://schemas.openid.net/event/backchannel-logout"},
    {"events": dict.fromkeys(EVENTS, True)},
    {"nonce": "n"},
    {"nonce": ""},
    {"sub": None},
    {"sub": ""},
    {"sub": 42},
    {"sub": "x" * 256},
    {"sid": ["a"]},
]


def test_what_is_no_logout_token_for_us_ends_nothing(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    cookie = sign_on(browser, provider, "1", "a")
    signed = claims(provider, sub="1")
    other = ECKey.generate_key("P-256", {"kid": "one"})
    forged = [
        *(provider.sign(claims(provider, **{"sub": "1", **wrong})) for wrong in WRONG),
        provider.sign(signed, typ="at+jwt"),
        jwt.encode({"alg": "ES256", "kid": "one"}, signed, other),
        jwt.encode({"alg": "ES256", "kid": "two"}, signed, other),
        provider.sign(signed)[:-4] + "AAAA",
        "no token",
        "",
    ]
    for token in forged:
        answer = send(browser, token)
        assert (answer.status_code, answer.json()["code"]) == (400, "logout_refused"), token
    assert ended(known, cookie) == [False]
    for kind in ("JWT", "application/logout+jwt"):
        fit = provider.sign(claims(provider, sub="1", aud=[CLIENT]), typ=kind)
        assert send(browser, fit).status_code == 200


def test_what_strangers_send_is_bounded(browser: TestClient, clock: Clock) -> None:
    assert browser.post(PATH, content=b"x" * 20_000, headers=FORM).status_code == 413
    assert browser.post(PATH, content=b"logout_token=%ff", headers=FORM).status_code == 400
    assert browser.post(PATH, json={"logout_token": "x"}).status_code == 400
    for _ in range(MOST - 3):
        assert send(browser, "x").status_code == 400
    slowed = send(browser, "x")
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "60")
    assert browser.get("/console/login").status_code == 200, "others sign in meanwhile"
    clock.pass_time(61)
    assert send(browser, "x").status_code == 400


def test_a_provider_that_is_away_has_to_send_again(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    token = provider.sign(claims(provider, sub="1"))
    provider.answers["/keys"] = (500, {})
    assert send(browser, token).status_code == 503
    provider.answers.clear()
    assert send(browser, token).status_code == 200


def test_without_a_provider_there_is_nothing_to_end(anyone: TestClient) -> None:
    assert anyone.post(PATH, content="logout_token=x", headers=FORM).status_code == 404


def sign_out(browser: TestClient, guard: Guard) -> Any:
    found = find_session(guard, browser.cookies[COOKIE])
    assert found is not None
    ours = {**FORM, "Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    content = urlencode({"csrf": found.csrf})
    return browser.post("/console/logout", content=content, headers=ours)


def test_whoever_signs_out_here_is_offered_to_sign_out_at_the_provider(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    described = "/.well-known/openid-configuration"
    end = f"{provider.issuer}/end?realm=ml"
    provider.answers[described] = (200, {**provider.described(), "end_session_endpoint": end})
    cookie = sign_on(browser, provider, "1", "a")

    left = sign_out(browser, known)

    assert left.status_code == 200
    assert ended(known, cookie) == [True]
    address = left.text.split('href="')[3].split('"')[0].replace("&amp;", "&")
    assert address.startswith(f"{end}&")
    assert parse_qs(urlsplit(address).query) == {
        "realm": ["ml"],
        "client_id": [CLIENT],
        "post_logout_redirect_uri": [f"{HERE}/console/login"],
    }


@pytest.mark.parametrize("end", [None, 7, "http://login.example/end", "javascript:alert(1)"])
def test_a_provider_without_a_safe_page_for_it_is_not_offered(
    known: Guard, browser: TestClient, provider: OpenIdProvider, end: Any
) -> None:
    described = {**provider.described(), "end_session_endpoint": end}
    provider.answers["/.well-known/openid-configuration"] = (200, described)
    sign_on(browser, provider, "1", "a")
    left = sign_out(browser, known)
    assert (left.status_code, left.headers["location"]) == (303, "/console/login")


def test_a_provider_that_went_away_holds_nobody_in(
    known: Guard, browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    cookie = sign_on(browser, provider, "1", "a")
    clock.pass_time(3540)
    assert find_session(known, cookie) is not None  # in use
    clock.pass_time(120)
    provider.answers["/.well-known/openid-configuration"] = (500, {})
    assert sign_out(browser, known).status_code == 303
    assert ended(known, cookie) == [True]
