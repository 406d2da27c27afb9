"""Check that the sender of an event may send it.

A sender shows a bearer token, or a fresh HMAC-SHA256 over `timestamp.body` that was not received
before.
"""

import hashlib
import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime

from guard.core.errors import InputError

TIMESTAMP_HEADER = "x-guard-timestamp"  # seconds since 1970 in UTC
SIGNATURE_HEADER = "x-guard-signature"  # sha256=<hexadecimal>
WINDOW_SECONDS = 300.0
_STAMP = re.compile(r"[0-9]{1,12}")
_UNSIGNED = "The request's signature does not fit; sign timestamp.body with the shared key."


class Unauthorised(InputError):
    """The sender did not prove that it may send.

    The sentence names what is missing, never what was expected.
    """

    code = "unauthorised"


class Seen:
    """Signatures of the last window, so that a recorded request does not work twice.

    Each process has one.

    Args:
        capacity: how many are kept; the oldest are dropped first, so a flood of requests shortens
            the window and never takes more memory.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._until: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def first_time(self, signature: str, now: float, until: float) -> bool:
        """Remember a signature; False if it was known already."""
        with self._lock:
            while self._until and next(iter(self._until.values())) < now:
                self._until.popitem(last=False)
            if signature in self._until:
                return False
            self._until[signature] = until
            if len(self._until) > self._capacity:
                self._until.popitem(last=False)
            return True

    def forget(self, signature: str) -> None:
        """Let the sender repeat exactly this request, which failed on the guard's side."""
        with self._lock:
            self._until.pop(signature, None)


def sign(body: bytes, key: str, now: datetime) -> dict[str, str]:
    """The headers that a sender adds to `body`."""
    stamp = str(int(now.timestamp()))
    return {TIMESTAMP_HEADER: stamp, SIGNATURE_HEADER: f"sha256={_mac(key, stamp, body)}"}


def check_claim(
    headers: Mapping[str, str],
    *,
    token: str,
    hmac_key: str,
    now: datetime,
    window_seconds: float = WINDOW_SECONDS,
) -> None:
    """Refuse by the headers alone who cannot pass `check_auth`, whatever the body is.

    Raises:
        Unauthorised: no token fits, or there is no signature that may be fresh.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if SIGNATURE_HEADER not in lower and TIMESTAMP_HEADER not in lower:
        _check_token(lower, token)
        return
    stamp = lower.get(TIMESTAMP_HEADER, "")
    if not (hmac_key and SIGNATURE_HEADER in lower and _STAMP.fullmatch(stamp)):
        raise Unauthorised(_UNSIGNED)
    _check_age(stamp, now.timestamp(), window_seconds)


def check_auth(
    headers: Mapping[str, str],
    body: bytes,
    *,
    token: str,
    hmac_key: str,
    now: datetime,
    seen: Seen | None = None,
    window_seconds: float = WINDOW_SECONDS,
) -> None:
    """Return if the sender holds the token or the key.

    A signature that is given must be valid, even beside a valid token. An empty `token` or
    `hmac_key` is not set and fits nobody.

    Args:
        headers: names in any case.

    Raises:
        Unauthorised: neither fits, the timestamp is too old or in the future, or the request was
            received before.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if SIGNATURE_HEADER in lower or TIMESTAMP_HEADER in lower:
        _check_signature(lower, body, hmac_key, now.timestamp(), seen, window_seconds)
        return
    _check_token(lower, token)


def _check_token(headers: Mapping[str, str], token: str) -> None:
    kind, _, given = headers.get("authorization", "").partition(" ")
    # Compared even when it cannot fit, so that the time taken reveals nothing.
    same = hmac.compare_digest(given.strip().encode(errors="replace"), token.encode())
    if not (token and kind.lower() == "bearer" and same):
        raise Unauthorised("The request carries no valid bearer token or signature.")


def _check_signature(
    headers: Mapping[str, str], body: bytes, key: str, now: float, seen: Seen | None, window: float
) -> None:
    stamp = headers.get(TIMESTAMP_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "").removeprefix("sha256=")
    wanted = _mac(key, stamp, body)
    if not (
        key
        and _STAMP.fullmatch(stamp)
        and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
    ):
        raise Unauthorised(_UNSIGNED)
    _check_age(stamp, now, window)
    if seen is not None and not seen.first_time(wanted, now, int(stamp) + window):
        raise Unauthorised(
            "The request was received before; sign a new one.", code="replayed_event"
        )


def _check_age(stamp: str, now: float, window: float) -> None:
    if abs(now - int(stamp)) > window:
        raise Unauthorised(
            f"The timestamp is more than {window:g} s off; check the clock.", code="stale_event"
        )


def signature_of(headers: Mapping[str, str]) -> str:
    """The signature that a request carries, for `Seen.forget`; empty if there is none."""
    return {name.lower(): value for name, value in headers.items()}.get(
        SIGNATURE_HEADER, ""
    ).removeprefix("sha256=")


def _mac(key: str, stamp: str, body: bytes) -> str:
    return hmac.new(
        key.encode(), stamp.encode(errors="replace") + b"." + body, hashlib.sha256
    ).hexdigest()
