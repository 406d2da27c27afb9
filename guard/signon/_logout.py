"""Logout tokens: what a provider says has ended (OpenID Connect Back-Channel Logout 1.0)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from joserfc.jwt import JWTClaimsRegistry

from guard.core.identity import SignedOff
from guard.signon._terms import Terms

EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: What the header may say that it is; an access token (`at+jwt`) or a request object is another.
TYPES = frozenset({"logout+jwt", "jwt"})
OLDEST = 86_400  # seconds since it was issued; for longer its id is kept (`guard.store.kept`)
MAX_TEXT = 255  # characters of a subject, a session's id and a token's own


def signed_off_of(
    header: Mapping[str, Any], claims: Mapping[str, Any], terms: Terms, now: datetime, leeway: int
) -> SignedOff:
    """What a logout token ends, whose signature was checked (2.6 of the standard).

    Raises:
        JoseError: it is of another issuer, for another client, too old, or names no id of its own.
        ValueError, TypeError: it is another kind of token, or does not say who or what ended.
    """
    registry = JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=leeway,
        iss={"essential": True, "value": terms.issuer},
        aud={"essential": True, "value": terms.client_id},
        iat={"essential": True},
        exp={"essential": True},
        jti={"essential": True},
    )
    registry.validate(dict(claims))
    if claims["iat"] < now.timestamp() - OLDEST:
        raise ValueError("too old")
    events, kind = claims.get("events"), header.get("typ", "jwt")
    if kind.lower().removeprefix("application/") not in TYPES:
        raise ValueError("another type of token")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise TypeError("no log-out")
    if "nonce" in claims:  # an ID token with more claims could pass for one otherwise
        raise ValueError("an ID token")
    audience = claims["aud"]
    if isinstance(audience, list) and set(audience) != {terms.client_id}:
        raise ValueError("for others as well")
    subject, sid = _text(claims, "sub"), _text(claims, "sid")
    if not subject and not sid:
        raise ValueError("nobody is named")
    return SignedOff(
        issuer=terms.issuer, subject=subject, sid=sid, statement_id=_text(claims, "jti")
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name, "")
    if not isinstance(found, str) or len(found) > MAX_TEXT:
        raise ValueError(f"{name} is no text of bounded length")
    return found
