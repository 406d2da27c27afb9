"""Summaries of a verdict: valid by in-toto's own types, and about nothing but the verdict."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.vsa.v1.vsa_pb2 import VerificationSummary
from in_toto_attestation.v1.statement_pb2 import Statement
from jsonschema import Draft202012Validator

from guard.attest import dsse
from guard.attest.keys import Signer
from guard.attest.summaries import SVR_TYPE, VSA_TYPE, svr_statement, vsa_statement
from guard.attest.views import read_verdict
from guard.core.digests import json_digest
from guard.core.states import Verdict
from tests.attest.making import DIGEST, NOW, a_statement

#: in-toto has published no schema and no type of this predicate; this is what its page requires.
SVR = {
    "type": "object",
    "required": ["verifier", "timeCreated", "properties"],
    "properties": {
        "verifier": {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "format": "uri"}},
        },
        "timeCreated": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*Z$"},
        "properties": {"type": "array", "items": {"type": "string"}},
    },
}


def vsa(*, passed: bool, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A VSA and the envelope of its verdict."""
    statement = a_statement(**fields)
    envelope = {"payload": "x", "signatures": []}
    at = NOW + timedelta(days=1)
    return vsa_statement(read_verdict(statement), envelope, passed=passed, at=at), envelope


@pytest.mark.parametrize("passed", [True, False])
def test_a_vsa_is_one_by_in_toto_s_own_types(passed: bool) -> None:
    statement, envelope = vsa(passed=passed)
    read = ParseDict(statement, Statement())
    # The package (0.9.3) types this field as one text; the specification, as a list of them.
    levels = statement["predicate"].pop("verifiedLevels")
    summary = ParseDict(statement["predicate"], VerificationSummary())

    assert (read.predicate_type, read.subject[0].digest["sha256"]) == (VSA_TYPE, DIGEST)
    assert summary.verification_result == ("PASSED" if passed else "FAILED")
    assert levels == (
        ["SLSA_BUILD_LEVEL_UNEVALUATED", "REGISTRY_GUARD_CLEARED"] if passed else ["FAILED"]
    )
    assert summary.policy.digest["sha256"] == "a" * 64
    assert summary.input_attestations[0].digest["sha256"] == json_digest(envelope)
    assert summary.time_verified.seconds == int((NOW + timedelta(days=1)).timestamp())


def test_a_name_cannot_leave_its_uri() -> None:
    statement, _ = vsa(passed=True, name="a/b?c#d")

    assert statement["predicate"]["resourceUri"] == "urn:registry-guard:model:a%2Fb%3Fc%23d"


def test_an_svr_states_the_verdict_and_what_was_looked_for() -> None:
    view = read_verdict(
        a_statement(verdict=Verdict.PURIFIED, coverage=("sample-specific", "patch"))
    )
    statement = svr_statement(view, at=NOW)

    assert list(Draft202012Validator(SVR).iter_errors(statement["predicate"])) == []
    ParseDict(statement, Statement())
    assert statement["predicateType"] == SVR_TYPE
    assert statement["predicate"]["properties"] == [
        "REGISTRY_GUARD_PURIFIED",
        "REGISTRY_GUARD_LOOKED_FOR_PATCH",
        "REGISTRY_GUARD_LOOKED_FOR_SAMPLE_SPECIFIC",
    ]


def test_no_summary_passes_for_a_verdict(signer: Signer) -> None:
    statement, _ = vsa(passed=True)

    with pytest.raises(Exception, match="another kind"):
        read_verdict(dsse.payload(dsse.sign(statement, signer)))
