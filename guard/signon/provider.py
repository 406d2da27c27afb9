"""The identity provider: where to send a browser, who comes back, and who left.

OpenID Connect Core 1.0 with the code flow, PKCE (RFC 7636) and, where the provider sends it, the
issuer in the answer (RFC 9207). Nothing but an ID token signed by one of the provider's own keys,
for us, in this attempt, says who somebody is.
"""

import base64
import hmac
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import quote

from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from guard.core.errors import InputError
from guard.core.identity import Identity, SignedOff
from guard.signon._http import ProviderAway, ask
from guard.signon._logout import MAX_TEXT, signed_off_of
from guard.signon._pending import Pending
from guard.signon._terms import Terms, is_safe_address

#: All asymmetric: with a shared secret, whoever knows it could sign, and `none` proves nothing.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
KINDS: Mapping[str, type[RSAKey | ECKey]] = {"RSA": RSAKey, "EC": ECKey}
Key: TypeAlias = RSAKey | ECKey
KEPT_SECONDS = 3600.0  # that the provider's own description and keys are believed
AGAIN_SECONDS = 60.0  # between two looks for a key that is not known
LEEWAY = 60  # seconds by which clocks may differ
MAX_GROUPS = 1000
_UNFIT = (JoseError, ValueError, TypeError, KeyError, AttributeError)  # what a wrong token raises


class SignOnRefused(InputError):
    """What came back from the provider does not prove who somebody is."""

    code = "sign_on_refused"


class LogoutRefused(InputError):
    """What was sent as a logout token does not prove that the provider ended something."""

    code = "logout_refused"


class Provider:
    """One provider, whose description and keys are kept for an hour.

    Args:
        now: the clock.
    """

    def __init__(self, terms: Terms, now: Callable[[], datetime]) -> None:
        self.terms = terms
        self._now = now
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, list[Key]] | None = None

    def start(self, wanted: str) -> tuple[str, str]:
        """Where to send a browser, and the cookie that it must come back with.

        Raises:
            ProviderAway: the provider does not answer, or describes itself wrongly.
        """
        pending = Pending.new(wanted, self._now())
        address = prepare_grant_uri(
            self._described()["authorization_endpoint"],
            self.terms.client_id,
            "code",
            redirect_uri=self.terms.redirect_url,
            scope=" ".join(self.terms.scopes),
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
        )
        return str(address), pending.sealed(self.terms.client_secret)

    def pending(self, cookie: str, answer: Mapping[str, str]) -> Pending:
        """The attempt that an answer of the provider belongs to.

        Raises:
            SignOnRefused: the browser began none, another one, or too long ago, or the answer is
                of another provider.
        """
        found = Pending.opened(cookie, self.terms.client_secret, self._now())
        state = answer.get("state", "")
        if found is None or not hmac.compare_digest(state.encode(), found.state.encode()):
            raise SignOnRefused("This browser began no such attempt, or too long ago.")
        if answer.get("iss", self.terms.issuer) != self.terms.issuer:
            raise SignOnRefused("The answer is of another provider.")
        return found

    def finish(self, pending: Pending, answer: Mapping[str, str]) -> Identity:
        """Who came back.

        Raises:
            SignOnRefused: the provider did not sign the person on, or the ID token does not fit.
            ProviderAway: the provider does not answer.
        """
        if not answer.get("code"):
            raise SignOnRefused(f"The provider gave no code ({answer.get('error', '')!r:.60}).")
        described = self._described()
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": self.terms.redirect_url,
            "client_id": self.terms.client_id,
            "code_verifier": pending.verifier,
        }
        status, given = ask(described["token_endpoint"], *self._proof(described, form))
        if status != 200 or not isinstance(given.get("id_token"), str):
            raise SignOnRefused(f"The provider took no code ({given.get('error', status)!r:.60}).")
        return self._identity(self._checked(given["id_token"], given, pending.nonce))

    def signed_off(self, token: str) -> SignedOff:
        """What a logout token ends that the provider sent to us itself.

        Raises:
            LogoutRefused: the provider did not sign it, for us, now, as a logout token.
            ProviderAway: its keys are not known, and it does not answer.
        """
        try:
            found = jwt.decode(token, self._key_of, algorithms=list(ALGORITHMS))
            return signed_off_of(found.header, found.claims, self.terms, self._now(), LEEWAY)
        except (*_UNFIT, SignOnRefused) as error:
            kind = type(error).__name__
            raise LogoutRefused(f"The logout token does not fit ({kind}).") from error

    def way_out(self) -> str:
        """Where a person signs out at the provider as well; empty where it has no such page.

        The provider asks them first, since no ID token is kept here that would name the session
        (OpenID Connect RP-Initiated Logout 1.0).
        """
        try:
            address = self._described().get("end_session_endpoint")
        except ProviderAway:
            return ""
        if not isinstance(address, str) or not is_safe_address(address):
            return ""
        back = {"client_id": self.terms.client_id, "post_logout_redirect_uri": self.terms.left_url}
        return str(add_params_to_uri(address, list(back.items())))

    def _proof(
        self, described: Mapping[str, Any], form: dict[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        secret = self.terms.client_secret.reveal()
        ways = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" not in ways and "client_secret_post" in ways:
            return {**form, "client_secret": secret}, {}
        pair = f"{quote(self.terms.client_id, safe='')}:{quote(secret, safe='')}"
        return form, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _checked(self, token: str, given: Mapping[str, Any], nonce: str) -> CodeIDToken:
        try:
            found = jwt.decode(token, self._key_of, algorithms=list(ALGORITHMS))
            claims = CodeIDToken(
                found.claims,
                found.header,
                options={
                    "iss": {"essential": True, "value": self.terms.issuer},
                    "aud": {"essential": True, "value": self.terms.client_id},
                },
                params={
                    "nonce": nonce,
                    "client_id": self.terms.client_id,
                    "access_token": given.get("access_token"),
                },
            )
            claims.validate(now=int(self._now().timestamp()), leeway=LEEWAY)
        except _UNFIT as error:
            raise SignOnRefused(f"The ID token does not fit ({type(error).__name__}).") from error
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject, name = claims["sub"], claims.get(self.terms.name_claim, "")
        if not (isinstance(subject, str) and 0 < len(subject) <= MAX_TEXT):
            raise SignOnRefused("The ID token names no subject.")
        groups = claims.get(self.terms.groups_claim, [])
        groups = [groups] if isinstance(groups, str) else groups
        if not isinstance(groups, list) or len(groups) > MAX_GROUPS:
            raise SignOnRefused("The ID token's groups are no list of bounded length.")
        plain = [one for one in groups if isinstance(one, str) and 0 < len(one) <= MAX_TEXT]
        sid = claims.get("sid", "")
        return Identity(
            issuer=self.terms.issuer,
            subject=subject,
            name=name[:MAX_TEXT] if isinstance(name, str) else "",
            groups=tuple(sorted(set(plain))),
            sid=sid if isinstance(sid, str) and len(sid) <= MAX_TEXT else "",
        )

    def _key_of(self, signed: Any) -> Any:
        """The provider's key that a token names; with one key alone it may name none."""
        kid = signed.headers().get("kid")
        for again in (False, True):
            keys = self._known_keys(again=again)
            fit = [key for key in keys if key.kid == kid] if kid is not None else keys
            if len(fit) == 1:
                return fit[0]
        raise SignOnRefused("The ID token is signed with a key that the provider does not name.")

    def _described(self) -> dict[str, Any]:
        with self._lock:
            now = self._now().timestamp()
            if self._metadata is None or not 0 <= now - self._metadata[0] < KEPT_SECONDS:
                self._metadata = (now, self._discovered())
            return self._metadata[1]

    def _discovered(self) -> dict[str, Any]:
        address = self.terms.issuer.rstrip("/") + "/.well-known/openid-configuration"
        status, found = ask(address)
        ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if status != 200 or found.get("issuer") != self.terms.issuer:
            raise ProviderAway("The identity provider does not describe itself as the issuer.")
        if not all(is_safe_address(found.get(name)) for name in ends):
            raise ProviderAway("The identity provider names an address without TLS.")
        return found

    def _known_keys(self, *, again: bool) -> list[Key]:
        address = self._described()["jwks_uri"]
        with self._lock:
            now = self._now().timestamp()
            age = now - self._keys[0] if self._keys is not None else KEPT_SECONDS
            if self._keys is None or not 0 <= age < (AGAIN_SECONDS if again else KEPT_SECONDS):
                self._keys = (now, _read_keys(*ask(address)))
            return self._keys[1]


def _read_keys(status: int, found: Mapping[str, Any]) -> list[Key]:
    """The keys that may sign ID tokens: public ones, for signatures."""
    listed = found.get("keys")
    if status != 200 or not isinstance(listed, list):
        raise ProviderAway("The identity provider names no keys.")
    keys: list[Key] = []
    for one in listed:
        kind = KINDS.get(one.get("kty", "")) if isinstance(one, dict) else None
        if kind is not None and one.get("use", "sig") == "sig":
            with suppress(JoseError, ValueError, TypeError, KeyError):  # of a kind we do not take
                keys.append(kind.import_key(one))
    return keys
