"""DSSE.

The specification's own example, another implementation's opinion, and everything that must not
verify.
"""

import base64
import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from guard.attest import dsse
from guard.attest.keys import Signer, TrustedKeys
from guard.core.errors import GuardError, IntegrityMismatch, MethodFailed
from tests.attest.making import a_signer, a_statement, trusting

SAID = {"_type": "x", "n": 0.1, "é": [1, None]}


def test_the_encoding_is_the_one_of_the_specifications_example() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, section Test Vectors."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(kind=st.text(max_size=40), body=st.binary(max_size=200))
def test_the_encoding_is_the_one_of_securesystemslib(kind: str, body: bytes) -> None:
    kind = kind.encode(errors="ignore").decode()

    assert dsse.pae(kind, body) == Envelope(body, kind, {}).pae()


@pytest.mark.row(38)
def test_securesystemslib_verifies_what_we_sign(signer: Signer) -> None:
    key = SSlibKey.from_crypto(
        Ed25519PublicKey.from_public_bytes(signer.public), keyid=signer.key_id
    )
    envelope = dsse.sign(SAID, signer)

    assert set(Envelope.from_dict(copy.deepcopy(envelope)).verify([key], 1)) == {signer.key_id}


def test_what_was_signed_comes_back_and_the_envelope_is_plain_json(
    signer: Signer, trusted: TrustedKeys
) -> None:
    envelope = dsse.sign(SAID, signer)
    before = copy.deepcopy(envelope)

    assert dsse.verify(json.loads(json.dumps(envelope)), trusted) == SAID == dsse.payload(envelope)
    dsse.verify(envelope, trusted)
    assert envelope == before


def test_any_trusted_signature_of_several_is_enough(signer: Signer, tmp_path: Path) -> None:
    stranger = a_signer(tmp_path)
    ours, theirs = dsse.sign(SAID, signer), dsse.sign(SAID, stranger)
    both = {**ours, "signatures": [{"sig": "?"}, *theirs["signatures"], *ours["signatures"]]}

    assert dsse.verify(both, trusting(signer)) == SAID
    with pytest.raises(IntegrityMismatch):
        dsse.verify(both, trusting(a_signer(tmp_path)))


def test_nobody_trusted_means_nothing_verifies(signer: Signer) -> None:
    with pytest.raises(IntegrityMismatch) as refusal:
        dsse.verify(dsse.sign(SAID, signer), TrustedKeys({}))

    assert refusal.value.code == "bad_signature"


def test_a_stranger_cannot_borrow_a_trusted_key_id(
    signer: Signer, trusted: TrustedKeys, tmp_path: Path
) -> None:
    envelope = dsse.sign(SAID, a_signer(tmp_path))
    envelope["signatures"][0]["keyid"] = signer.key_id

    with pytest.raises(IntegrityMismatch):
        dsse.verify(envelope, trusted)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": None},
        {"payload": 1},
        {"payload": "?"},
        {"payload": ""},
        {"payloadType": None},
        {"payloadType": "application/json"},
        {"signatures": None},
        {"signatures": []},
        {"signatures": {}},
        {"signatures": [None]},
        {"signatures": [{"keyid": "x"}]},
        {"signatures": [{"keyid": "x", "sig": 1}]},
        {"payload": "A" * (dsse.MAX_PAYLOAD_BYTES * 2 + 4)},
    ],
)
def test_a_malformed_envelope_is_refused_with_our_own_error(
    signer: Signer, trusted: TrustedKeys, change: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityMismatch):
        dsse.verify({**dsse.sign(SAID, signer), **change}, trusted)
    with pytest.raises(IntegrityMismatch):
        dsse.verify({}, trusted)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_the_payload_may_change(
    signer: Signer, trusted: TrustedKeys, at: int, bit: int
) -> None:
    envelope = dsse.sign(a_statement(), signer)
    body = bytearray(base64.b64decode(envelope["payload"]))
    body[at % len(body)] ^= 1 << bit
    envelope["payload"] = base64.b64encode(body).decode()

    with pytest.raises(IntegrityMismatch):
        dsse.verify(envelope, trusted)


ANY_JSON = st.recursive(
    st.none() | st.text(max_size=9) | st.integers() | st.just(dsse.PAYLOAD_TYPE),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["keyid", "sig"]), part)
    ),
    max_leaves=6,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    envelope=st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures", "x"]), ANY_JSON
    )
)
def test_no_foreign_error_leaks_from_any_json(
    trusted: TrustedKeys, envelope: dict[str, Any]
) -> None:
    with pytest.raises(GuardError):
        dsse.verify(envelope, trusted)
    with pytest.raises(GuardError):
        dsse.payload(envelope)


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"{", b"\xff", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"[" * 100_000]
)
def test_a_signed_body_that_is_no_plain_object_is_refused(
    signer: Signer, trusted: TrustedKeys, body: bytes
) -> None:
    signature = signer.sign(dsse.pae(dsse.PAYLOAD_TYPE, body))
    envelope = {
        "payloadType": dsse.PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}],
    }

    with pytest.raises(IntegrityMismatch):
        dsse.verify(envelope, trusted)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_not_signed(signer: Signer, number: float) -> None:
    with pytest.raises(MethodFailed):
        dsse.sign({"score": number}, signer)
