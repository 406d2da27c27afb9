"""People sign on with an OpenID provider; what it did not sign, for us and now, lets nobody in."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from guard.api.app import create_app
from guard.api.sessions import COOKIE
from guard.core.errors import InputError
from guard.core.identity import Identity
from guard.core.roles import Act, Role
from guard.flow.context import Guard
from guard.flow.identities import NoRole, sign_on
from guard.flow.principals import Unauthorised, authenticate
from guard.flow.sessions import find_session
from guard.settings import Secret, Settings
from guard.signon import terms_of
from guard.store import acts, identities, principals
from guard.store.session import StoreConflict, reading, transaction
from tests import people
from tests.api.conftest import Clock
from tests.api.provider import CLIENT, HERE, SECRET, START, OpenIdProvider, leave


@pytest.fixture
def browser(known: Guard) -> Iterator[TestClient]:
    app = create_app(known)

    @app.get("/console/who")
    def who(request: Request) -> dict[str, Any]:
        found = request.state.principal
        return {"name": found.name, "roles": [one.role for one in found.credentials]}

    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        yield client


def status(browser: TestClient, start: str = START) -> int:
    return int(browser.get(leave(browser, start)).status_code)


def signings(guard: Guard) -> list[Any]:
    with reading(guard.engine) as session:
        return [row for row in acts.walk(session, 0, 100) if row.act == Act.SIGN_IN]


def test_a_person_signs_on_with_the_roles_of_their_groups(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    shown = browser.get("/console/login?next=/console/who").text
    assert '"/console/login/oidc?next=/console/who"' in shown

    back = browser.get(leave(browser))

    assert back.status_code == 200
    assert 'content="0;url=/console/who"' in back.text
    assert "SameSite=strict" in back.headers["set-cookie"]
    assert browser.get("/console/who").json() == {"name": "ann", "roles": ["reviewer", "uploader"]}
    act = signings(known)[-1]
    assert (act.principal, act.role, act.authenticated) == ("ann", "reviewer", True)
    assert (act.facts["issuer"], act.facts["subject"]) == (provider.issuer, "42")
    assert act.facts["groups"] == ["ml"]
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_no_bearer_can_show_the_token_of_a_session(known: Guard, browser: TestClient) -> None:
    status(browser)
    token_id = signings(known)[-1].token_id
    for secret in ("0" * 43, "", "x" * 43):
        with pytest.raises(Unauthorised):
            authenticate(known, f"guard_{token_id}_{secret}")


def test_a_person_stays_the_same_principal_whatever_they_are_called(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    assert status(browser) == 200
    provider.person["preferred_username"] = "Root"
    assert status(browser) == 200
    assert browser.get("/console/who").json()["name"] == "ann"


NAMES: dict[Any, str] = {
    "root": r"root-[0-9a-f]{8}",
    "ROOT": r"root-[0-9a-f]{8}",
    "api": r"api-[0-9a-f]{8}",
    "guard": r"guard-[0-9a-f]{8}",
    "": "person",
    "é / ../": r"person-[0-9a-f]{8}",
    None: r"person-[0-9a-f]{8}",
    7: r"person-[0-9a-f]{8}",
    "Ann O'Neil <ann@example.org>": "ann-o-neil-ann@example.org",
    "a" * 300: "a{40}",
}


def test_a_persons_name_is_nobody_elses(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    people.give(known, "bob", Role.VIEWER)  # and with it the operator `root`
    for number, (called, name) in enumerate(NAMES.items()):
        provider.claims = {"preferred_username": called, "sub": f"person {number}"}
        assert status(browser) == 200
        assert re.fullmatch(name, browser.get("/console/who").json()["name"])


def test_two_people_of_one_name_are_two_principals(known: Guard) -> None:
    def person(subject: str, issuer: str = "https://a.example") -> str:
        who = Identity(issuer=issuer, subject=subject, name="ann", groups=("ml",))
        opened = sign_on(known, who, [Role.VIEWER], attempt=f"{issuer}{subject}")
        found = find_session(known, opened.cookie)
        assert found is not None
        return found.principal.name

    assert len({person("1"), person("2"), person("1", "https://b.example")}) == 3
    with reading(known.engine) as session:
        assert identities.groups_of(session, "ann") == {"ml"}
        assert identities.groups_of(session, "nobody") == frozenset()


def test_roles_are_those_of_the_last_sign_on_and_end_earlier_sessions(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    status(browser)
    first = browser.cookies[COOKIE]
    status(browser)
    second = browser.cookies[COOKIE]
    assert find_session(known, first) is not None, "the same roles: another browser stays in"

    provider.person["groups"] = "lead"
    status(browser)
    assert browser.get("/console/who").json()["roles"] == ["operator"]
    assert [find_session(known, cookie) for cookie in (first, second)] == [None, None]
    assert len(signings(known)[-1].facts["ended"]) == 4

    third = browser.cookies[COOKIE]
    provider.person["groups"] = []
    refused = browser.get(leave(browser))
    assert (refused.status_code, "None of your groups" in refused.text) == (403, True)
    assert find_session(known, third) is None
    with reading(known.engine) as session:
        last = acts.walk(session, 0, 100)[-1]
    assert (last.act, last.principal, len(last.facts["ended"])) == (Act.SIGN_OUT, "ann", 1)


def test_who_is_in_no_group_with_a_role_does_not_get_in_nor_becomes_anybody(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    for groups in list[Any]((None, [], ["other"], "other", [1, None, []], ["x"])):
        provider.claims["groups"] = groups
        assert status(browser) == 403
    assert COOKIE not in browser.cookies
    with reading(known.engine) as session:
        assert not principals.exist(session)


def encoded(*parts: dict[str, Any]) -> str:
    plain = [json.dumps(part).encode() for part in parts]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in plain)


def none(claims: dict[str, Any]) -> str:
    return encoded({"alg": "none"}, claims) + "."


def confused(provider: OpenIdProvider) -> Any:
    """Signed with the public key as if it were a shared secret."""
    pem = provider.key.as_pem(private=False)

    def forged(claims: dict[str, Any]) -> str:
        signed = encoded({"alg": "HS256", "kid": provider.key.kid}, claims)
        mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    return forged


def by_another_key(kid: str | None) -> Any:
    key = ECKey.generate_key("P-256", {"kid": "two"})
    head = {"alg": "ES256"} | ({"kid": kid} if kid else {})
    return lambda claims: jwt.encode(head, claims, key)


def by_the_client_secret(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET), algorithms=["HS256"])


WRONG: list[dict[str, Any]] = [
    {"nonce": "another"},
    {"nonce": None},
    {"aud": "another"},
    {"aud": None},
    {"aud": [CLIENT, "another"]},
    {"azp": "another"},
    {"iss": "http://127.0.0.1:1"},
    {"iss": None},
    {"exp": 1_700_000_000},
    {"exp": None},
    {"iat": 1_900_000_000},
    {"nbf": 1_900_000_000},
    {"sub": None},
    {"sub": ""},
    {"sub": 42},
    {"sub": "x" * 256},
    {"at_hash": "x"},
    {"groups": {"ml": 1}},
    {"groups": ["ml"] * 1001},
]


def test_an_id_token_that_is_not_for_this_attempt_lets_nobody_in(
    browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    for wrong in WRONG:
        provider.claims = wrong
        assert status(browser) == 401, wrong
        assert COOKIE not in browser.cookies
        clock.pass_time(10)


def test_an_id_token_that_the_provider_did_not_sign_lets_nobody_in(
    browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    signed = provider.sign
    for forge in (
        none,
        confused(provider),
        by_another_key("one"),
        by_another_key("two"),
        by_another_key(None),
        by_the_client_secret,
        lambda claims: signed(claims)[:-4] + "AAAA",
        lambda _: "no token",
        lambda _: "",
        lambda _: "ä.b.c",
    ):
        provider.forge = forge
        assert status(browser) == 401
        assert COOKIE not in browser.cookies
    provider.forge = signed
    assert status(browser) == 200


def test_a_provider_may_change_its_key(
    browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    assert status(browser) == 200
    provider.key = ECKey.generate_key("P-256", {"kid": "new"})
    assert status(browser) == 401, "looked a moment ago"
    clock.pass_time(61)
    assert status(browser) == 200


def test_keys_that_are_not_for_signatures_are_not_taken(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    other = ECKey.generate_key("P-256", {"kid": "one", "use": "enc"}).as_dict(private=False)
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "one"}
    own = provider.key.as_dict(private=False)
    provider.answers["/keys"] = (200, {"keys": [other, secret, "x", {"kty": "EC"}, own]})
    assert status(browser) == 200


def test_the_way_back_is_of_the_attempt_that_this_browser_began(
    browser: TestClient, provider: OpenIdProvider, clock: Clock
) -> None:
    back = leave(browser)
    cookie = browser.cookies["guard_signon"]
    state = back.split("state=")[1].split("&")[0]

    def tried(target: str, value: str = cookie) -> int:
        browser.cookies.clear()
        browser.cookies.set("guard_signon", value)
        return int(browser.get(target).status_code)

    assert tried(back.replace(state, "")) == 401, "no state"
    assert tried(back.replace(state, "é")) == 401, "another one"
    assert tried(back, "") == 401, "another browser"
    assert tried(back, "x.y") == 401, "a cookie that was made up"
    assert tried(back, f"{cookie[:-1]}{'0' if cookie[-1] != '0' else '1'}") == 401
    assert tried(f"{back}x") == 401, "another issuer"
    assert tried(back.replace("code=", "error=")) == 401, "no code"
    assert "/token" not in provider.asked
    assert tried(back) == 200
    clock.pass_time(601)
    assert tried(back) == 401, "too late"


def test_an_attempt_opens_one_session_whatever_the_provider_takes(
    known: Guard, browser: TestClient, provider: OpenIdProvider
) -> None:
    back, cookie = leave(browser), browser.cookies["guard_signon"]
    for reuse, expected in ((False, 200), (False, 401), (True, 401)):
        if reuse:
            provider.reuse = True
            back = leave(browser)
            cookie = browser.cookies["guard_signon"]
            assert browser.get(back).status_code == 200
        browser.cookies.set("guard_signon", cookie, domain="127.0.0.1")
        assert browser.get(back).status_code == expected
    assert len(signings(known)) == 2


def test_failing_too_often_slows_down(browser: TestClient) -> None:
    found = [browser.get("/console/login/oidc/callback").status_code for _ in range(21)]
    assert found == [401] * 20 + [429]


def test_signing_on_leads_to_a_page_of_the_console_alone(browser: TestClient) -> None:
    for wanted in ("https://evil.example/", "//evil.example", "/scans", "/console/login"):
        back = browser.get(leave(browser, f"/console/login/oidc?next={wanted}"))
        assert 'content="0;url=/console/"' in back.text


def test_a_provider_that_describes_itself_wrongly_is_away(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    open_to_all = ("http://guard.example/x", "file:///x", None, "http://[x", 7)
    answers: list[tuple[int, Any]] = [
        (500, {}),
        (200, []),
        (200, b"no json"),
        (200, b"[" * 100_000),
        (200, b" " * 300_000),
        (303, "http://127.0.0.1:1/"),
        (200, {"issuer": "https://another.example"}),
        *((200, {**provider.described(), end: address}) for end in ends for address in open_to_all),
    ]
    for answer in answers:
        provider.answers["/.well-known/openid-configuration"] = answer
        assert browser.get(START).status_code == 503, answer
    provider.answers.clear()
    assert browser.get(START).status_code == 303


def test_a_provider_that_fails_lets_nobody_in(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    answers: list[tuple[str, tuple[int, Any], int]] = [
        ("/keys", (200, {}), 503),
        ("/keys", (500, {"keys": []}), 503),
        ("/keys", (200, {"keys": []}), 401),
        ("/token", (200, {}), 401),
        ("/token", (200, {"id_token": 7}), 401),
        ("/token", (500, b""), 503),
        ("/token", (400, {"error": "<script>"}), 401),
    ]
    for path, answer, expected in answers:
        provider.answers = {path: answer}
        back = browser.get(leave(browser))
        assert (back.status_code, "<script>" in back.text) == (expected, False)


def test_a_provider_that_is_gone_is_away(browser: TestClient, provider: OpenIdProvider) -> None:
    back = leave(browser)
    provider.server.shutdown()
    provider.server.server_close()
    assert browser.get(back).status_code == 503


def test_the_secret_goes_into_the_form_where_the_provider_wants_it_there(
    browser: TestClient, provider: OpenIdProvider
) -> None:
    ways = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    provider.answers["/.well-known/openid-configuration"] = (200, provider.described() | ways)
    assert status(browser) == 200


def test_without_a_provider_there_is_nothing_to_sign_on_with(guard: Guard) -> None:
    with TestClient(create_app(guard), base_url=HERE) as client:
        assert "login/oidc" not in client.get("/console/login").text
        for path in (START, "/console/login/oidc/callback"):
            assert client.get(path).status_code == 404


def test_the_database_refuses_a_person_twice(known: Guard) -> None:
    who = Identity(issuer="https://a.example", subject="1", name="ann", groups=())
    with pytest.raises(NoRole):
        sign_on(known, who, [], attempt="1")
    sign_on(known, who, [Role.VIEWER], attempt="2")
    with pytest.raises(StoreConflict), transaction(known.engine) as session:
        identities.add(session, who, "ann", known.now())


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"public_url": ""}, "GUARD_PUBLIC_URL"),
    ({"public_url": "http://guard.example"}, "GUARD_PUBLIC_URL"),
    ({"public_url": "https://ann@guard.example"}, "GUARD_PUBLIC_URL"),
    ({"oidc_issuer": "http://login.example"}, "GUARD_OIDC_ISSUER"),
    ({"oidc_client_id": ""}, "GUARD_OIDC_CLIENT_ID"),
    ({"oidc_client_secret": Secret()}, "GUARD_OIDC_CLIENT_SECRET"),
    ({"oidc_roles": ()}, "GUARD_OIDC_ROLES"),
    ({"oidc_roles": ("ml",)}, "GUARD_OIDC_ROLES"),
    ({"oidc_roles": ("=viewer",)}, "GUARD_OIDC_ROLES"),
    ({"oidc_roles": ("ml=boss",)}, "GUARD_OIDC_ROLES"),
]


def test_settings_that_cannot_work_stop_the_api_at_its_start() -> None:
    whole = Settings(
        public_url="https://guard.example/",
        oidc_issuer="https://login.example",
        oidc_client_id=CLIENT,
        oidc_client_secret=Secret(SECRET),
        oidc_roles=("a=b=viewer", "ml=viewer"),
    )
    terms = terms_of(whole)
    assert terms is not None
    assert terms.redirect_url == "https://guard.example/console/login/oidc/callback"
    assert terms.roles_of(("a=b",)) == {Role.VIEWER}
    assert SECRET not in repr(terms)

    for changed, named in CHANGES:
        with pytest.raises(InputError, match=named):
            terms_of(replace(whole, **changed))
