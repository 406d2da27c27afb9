"""A small OpenID provider over HTTP on loopback, which keeps to the standard until asked not to.

Code flow with PKCE, one client, one person. What it must not do is brought about by `claims`,
`forge` and `answers`.
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import ECKey

CLIENT, SECRET = "guard", "a secret: with % and é"
HERE = "http://127.0.0.1:8080"
START = "/console/login/oidc?next=/console/who"


class OpenIdProvider:
    """The provider; `person` is who signs on there next."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        self.person: dict[str, Any] = {"sub": "42", "preferred_username": "Ann", "groups": ["ml"]}
        self.claims: dict[str, Any] = {}  # over those of the standard; None leaves one out
        self.forge: Callable[[dict[str, Any]], str] = self.sign
        self.answers: dict[str, Any] = {}  # by path: (status, body) instead of the standard's
        self.reuse = False  # whether a code works twice
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode({"alg": "ES256", "kid": self.key.kid, **header}, claims, self.key)

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?realm=ml",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where to send the browser back to, with a code."""
        assert query["client_id"] == CLIENT
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert query["realm"] == "ml"
        assert "openid" in query["scope"].split()
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        back = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        basic = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        wanted = f"{CLIENT}:a%20secret%3A%20with%20%25%20and%20%C3%A9"
        if not hmac.compare_digest(basic.encode(), wanted.encode()) and (
            form.get("client_secret") != SECRET
        ):
            return 401, {"error": "invalid_client"}
        known = self._codes.get(form["code"])
        challenge = base64.urlsafe_b64encode(
            hashlib.sha256(form["code_verifier"].encode()).digest()
        )
        if (
            known is None
            or known["redirect_uri"] != form["redirect_uri"]
            or known["code_challenge"] != challenge.decode().rstrip("=")
        ):
            return 400, {"error": "invalid_grant"}
        if not self.reuse:
            del self._codes[form["code"]]
        now = int(self.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": known["nonce"],
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.forge(claims)}

    def answer(self, method: str, target: str, body: str, authorization: str) -> tuple[int, Any]:
        path = urlsplit(target).path
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == "/authorize":
            return 303, self.authorize(
                {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
            )
        if path == "/token" and method == "POST":
            return self.token({k: v[0] for k, v in parse_qs(body).items()}, authorization)
        if path == "/keys":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        return 200, self.described()


@contextmanager
def running(now: Callable[[], datetime]) -> Iterator[OpenIdProvider]:
    made = OpenIdProvider(now)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def leave(browser: TestClient, start: str = START) -> str:
    """Where the provider sends the browser back to, as path and query."""
    sent = browser.get(start)
    assert sent.status_code == 303, sent.text
    there = urlsplit(sent.headers["location"])
    with closing(HTTPConnection(there.netloc, timeout=10)) as connection:
        connection.request("GET", f"{there.path}?{there.query}")
        location = connection.getresponse().headers["Location"]
    assert location.startswith(f"{HERE}/console/login/oidc/callback?")
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"


def _handler_of(provider: OpenIdProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            authorization = self.headers.get("Authorization", "")
            status, found = provider.answer(self.command, self.path, body, authorization)
            self.send_response(status)
            if status == 303:
                self.send_header("Location", found)
                found = {}
            sent = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
