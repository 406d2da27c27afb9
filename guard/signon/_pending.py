"""What a browser keeps while its person is at the provider, sealed so that it cannot be made up."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import datetime

from guard.core.secret import Secret

SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Pending:
    """One attempt to sign on: `state` comes back in the address, `nonce` in the ID token.

    `verifier` is what the provider asks for in exchange for the code (PKCE). `wanted` is the page
    to go to afterwards.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    wanted: str
    at: float

    @classmethod
    def new(cls, wanted: str, now: datetime) -> "Pending":
        """A new attempt, with 256 random bits in each of the three."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state=state, nonce=nonce, verifier=verifier, wanted=wanted, at=now.timestamp())

    def sealed(self, key: Secret) -> str:
        """The attempt as a cookie."""
        body = base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()
        return f"{body}.{_mac(key, body)}"

    @classmethod
    def opened(cls, cookie: str, key: Secret, now: datetime) -> "Pending | None":
        """The attempt that a cookie holds; None where it was not sealed here, or is too old."""
        body, _, mac = cookie.partition(".")
        if not hmac.compare_digest(mac.encode(errors="replace"), _mac(key, body).encode()):
            return None
        found = cls(**json.loads(base64.urlsafe_b64decode(body)))
        return found if 0 <= now.timestamp() - found.at <= SECONDS else None


def _mac(key: Secret, body: str) -> str:
    text = f"guard sign-on {body}".encode(errors="replace")
    return hmac.new(key.reveal().encode(), text, hashlib.sha256).hexdigest()
