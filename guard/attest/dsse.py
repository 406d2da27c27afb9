"""DSSE envelopes around in-toto statements.

Specification: https://github.com/secure-systems-lab/dsse (protocol.md).

The signature covers PAE(payloadType, payload), so that a payload cannot be read as another type.
securesystemslib's `Envelope` is not used, since its parser changes the dictionary it is given and
accepts several spellings of base64; a test compares the two.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from guard.attest.keys import Signer, TrustedKeys
from guard.core.digests import canonical_json
from guard.core.errors import IntegrityMismatch, MethodFailed

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_PAYLOAD_BYTES = 4 << 20
MAX_SIGNATURES = 8


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: `DSSEv1`, lengths in ASCII decimals, single spaces."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: Mapping[str, Any], signer: Signer) -> dict[str, Any]:
    """Sign a statement and wrap it in an envelope.

    Raises:
        MethodFailed: it holds a number that is not finite.
    """
    try:
        body = canonical_json(dict(statement))
    except ValueError as error:
        raise MethodFailed(
            "A statement with a number that is not finite is not signed.", code="non_finite"
        ) from error
    signature = signer.sign(pae(PAYLOAD_TYPE, body))
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}],
    }


def verify(envelope: Mapping[str, Any], trusted: TrustedKeys) -> dict[str, Any]:
    """The statement in an envelope, if a trusted key signed exactly these bytes.

    Raises:
        IntegrityMismatch: this is no envelope, its payload has another type, or no trusted key
            signed it.
    """
    body = _body(envelope)
    signed = pae(PAYLOAD_TYPE, body)
    if not any(
        trusted.verify(key_id, signature, signed) for key_id, signature in _signatures(envelope)
    ):
        raise IntegrityMismatch("No trusted key signed this statement.", code="bad_signature")
    return _statement(body)


def payload(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The statement WITHOUT a check of its signature: to show, never to decide.

    Raises:
        IntegrityMismatch: this is no envelope.
    """
    return _statement(_body(envelope))


def _body(envelope: Mapping[str, Any]) -> bytes:
    kind, text = envelope.get("payloadType"), envelope.get("payload")
    if kind != PAYLOAD_TYPE or not isinstance(text, str) or len(text) > 2 * MAX_PAYLOAD_BYTES:
        raise _no_envelope("This is no signed in-toto statement.")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _no_envelope("The statement's payload is not base64.") from error


def _signatures(envelope: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    listed = envelope.get("signatures")
    for entry in listed[:MAX_SIGNATURES] if isinstance(listed, list) else []:
        try:
            found.append((str(entry["keyid"]), base64.b64decode(entry["sig"], validate=True)))
        except (KeyError, TypeError, ValueError):
            continue  # an entry that cannot be read is no signature; another one may be
    return found


def _statement(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _no_envelope("The statement's payload is not JSON.") from error
    if not isinstance(value, dict):
        raise _no_envelope("The statement's payload is no JSON object.")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # Two readers could each take a different one of the two values.
        raise ValueError("a key is repeated")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _no_envelope(sentence: str) -> IntegrityMismatch:
    return IntegrityMismatch(sentence, code="no_envelope")
