"""The two in-toto statements the guard signs.

A verdict about an artifact, and its release under a name and version.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md; `guard.attest.views` reads
them back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from guard.core.evidence import AsrEstimate, Target
from guard.core.states import Verdict, not_covered

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
VERDICT_TYPE = "https://registry-guard.dev/verdict/v1"
RELEASE_TYPE = "https://registry-guard.dev/release/v1"


def verdict_statement(
    *,
    digest: str,
    name: str,
    verdict_id: str,
    scan_id: str,
    verdict: Verdict,
    score: float | None,
    target: Target,
    asr: AsrEstimate | None,
    coverage: Sequence[str],
    reasons: Sequence[str],
    evidence: Sequence[str],
    policy_name: str,
    policy_digest: str,
    cleanset: str | None,
    parent: str | None,
    basis: Mapping[str, Any],
    issued_at: datetime,
    expires_at: datetime,
    asr_upper: float | None = None,
    calibration: str | None = None,
    known_gaps: Mapping[str, Any] | None = None,
    purification: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What was found about one artifact, by which policy, and until when that holds.

    `asr_upper` bounds the rates of all accused triggers at once; `calibration` is the digest of the
    calibration file that the score comes from; `known_gaps` is what was measured for the policy
    (`guard.policy.known_gaps`), None where no method looked. `purification` is how a repaired
    artifact was made and proved (`guard.vetting.repair.proved`), None for an upload.

    `evidence` holds evidence keys, `basis` says who decided: `{"kind": "policy"}`, or `{"kind":
    "review", ...}` with reviewer, reason and the verdict that was reviewed.
    """
    predicate = {
        "verdict_id": verdict_id,
        "scan_id": scan_id,
        "name": name,
        "verdict": str(verdict),
        "score": score,
        "target": target,
        "asr": None if asr is None else asdict(asr),
        "asr_upper": asr_upper,
        "calibration": calibration,
        "coverage": list(coverage),
        "not_covered": not_covered(coverage),
        "known_gaps": None if known_gaps is None else dict(known_gaps),
        "reasons": list(reasons),
        "evidence": list(evidence),
        "basis": dict(basis),
        "cleanset": cleanset,
        "policy": {"name": policy_name, "digest": policy_digest},
        "parent": parent,
        "purification": None if purification is None else dict(purification),
        "issued_at": iso(issued_at),
        "expires_at": iso(expires_at),
    }
    return _statement(name, digest, VERDICT_TYPE, predicate)


def release_statement(
    *,
    digest: str,
    name: str,
    version: str,
    verdict_id: str,
    verdict: Verdict,
    policy_digest: str,
    issued_at: datetime,
    expires_at: datetime,
) -> dict[str, Any]:
    """That these bytes may answer under this name and version.

    Until the verdict behind it expires.
    """
    predicate = {
        "name": name,
        "version": version,
        "verdict_id": verdict_id,
        "verdict": str(verdict),
        "policy_digest": policy_digest,
        "issued_at": iso(issued_at),
        "expires_at": iso(expires_at),
    }
    return _statement(name, digest, RELEASE_TYPE, predicate)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with a Z; refuses a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a timezone cannot be signed")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: object) -> datetime | None:
    """The inverse of `iso`; None for anything else."""
    if not isinstance(text, str) or not text.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _statement(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": predicate,
    }
