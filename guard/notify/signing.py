"""Signatures of messages as Standard Webhooks has them (standardwebhooks.com, scheme v1)."""

import base64
import binascii
import hashlib
import hmac
import secrets

from guard.core.errors import InputError

PREFIX = "whsec_"


def new_secret() -> str:
    """A secret of 256 random bits, in the form that receivers' libraries take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key in a secret.

    Raises:
        InputError: it is not `whsec_` and 24 to 64 bytes in base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise InputError(
            "A webhook's secret is whsec_ and 24 to 64 random bytes in base64; without one the "
            "guard makes it.",
            code="bad_hook_secret",
        )
    return key


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message.

    Args:
        secret: as `key_of` takes it.
        message_id: the same at each try, so that a receiver takes the message once.
        timestamp: seconds since 1970 of this try.
        body: exactly what is sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    mac = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
