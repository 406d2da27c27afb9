"""Two statements that other tools know, made from a signed verdict: SLSA's VSA and in-toto's SVR.

Specifications: https://slsa.dev/spec/v1.0/verification_summary and
https://github.com/in-toto/attestation/blob/main/spec/predicates/svr.md. Neither has a time at which
it ends: a reader must compare the time of verification with how old it may be. Ours is the gate's
judgement at that time, so that a withdrawn or expired model gets none that passes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from guard.attest.statement import STATEMENT_TYPE
from guard.attest.views import VerdictView
from guard.core.digests import canonical_json, sha256
from guard.core.plain import iso

VSA_TYPE = "https://slsa.dev/verification_summary/v1"
SVR_TYPE = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER = "https://registry-guard.dev/verifier/v1"
#: What we assert has names of our own; SLSA's build track is not ours to judge.
_PREFIX = "REGISTRY_GUARD_"
_NOT_JUDGED = "SLSA_BUILD_LEVEL_UNEVALUATED"


def vsa_statement(
    view: VerdictView, envelope: Mapping[str, Any], *, passed: bool, at: datetime
) -> dict[str, Any]:
    """SLSA's verification summary of a verdict.

    Args:
        envelope: the signed verdict, which it names by digest.
        passed: the gate's judgement.
        at: when the gate judged.

    Raises:
        ValueError: the time has no zone.
    """
    predicate = {
        "verifier": {"id": VERIFIER},
        "timeVerified": iso(at),
        "resourceUri": f"urn:registry-guard:model:{quote(view.name, safe='')}",
        "policy": _policy(view),
        "inputAttestations": [
            {
                "uri": f"urn:registry-guard:verdict:{view.verdict_id}",
                "digest": {"sha256": sha256(canonical_json(dict(envelope)))},
            }
        ],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [_NOT_JUDGED, _own(view.verdict)] if passed else ["FAILED"],
        "slsaVersion": "1.0",
    }
    return _statement(view, VSA_TYPE, predicate)


def svr_statement(view: VerdictView, *, at: datetime) -> dict[str, Any]:
    """in-toto's simple verification result of a verdict that the gate passes.

    It asserts the verdict and, for each trigger family, that a method looked for it.

    Raises:
        ValueError: the time has no zone.
    """
    looked = sorted(_own(f"looked for {family}") for family in view.facts.coverage)
    predicate = {
        "verifier": {"id": VERIFIER, "policy": _policy(view)},
        "timeCreated": iso(at),
        "properties": [_own(view.verdict), *looked],
    }
    return _statement(view, SVR_TYPE, predicate)


def _policy(view: VerdictView) -> dict[str, Any]:
    return {
        "uri": f"urn:registry-guard:policy:{quote(view.policy.name, safe='')}",
        "digest": {"sha256": view.policy.digest},
    }


def _own(property_name: str) -> str:
    return _PREFIX + "".join(char if char.isalnum() else "_" for char in property_name.upper())


def _statement(view: VerdictView, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": view.name, "digest": {"sha256": view.digest}}],
        "predicateType": kind,
        "predicate": predicate,
    }
