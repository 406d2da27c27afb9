"""The two in-toto statements the guard signs: a verdict, and a release under a name and version.

Specification: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The content of
a verdict is `guard.core.verdict.VerdictFacts`; `guard.attest.views` reads both statements back.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from guard.core.contracts import ServedForm
from guard.core.plain import Basis, Digest, Text, iso, to_plain
from guard.core.states import Verdict, not_covered
from guard.core.verdict import Gated, VerdictFacts

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
VERDICT_TYPE = "https://registry-guard.dev/verdict/v2"
#: Signed before natural triggers stood apart from `asr`; it is read as what it is.
OLDER_VERDICT_TYPE = "https://registry-guard.dev/verdict/v1"
RELEASE_TYPE = "https://registry-guard.dev/release/v1"


@dataclass(frozen=True, kw_only=True)
class PolicyName:
    """The policy that decided: its name, and the digest of its rules."""

    name: Text
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Issue:
    """The circumstances of a verdict: its ids, its basis, and until when it holds."""

    verdict_id: Text
    scan_id: Text
    name: Text
    policy: PolicyName
    cleanset: Digest | None
    basis: Basis
    issued_at: datetime
    expires_at: datetime


def verdict_statement(digest: str, facts: VerdictFacts, issue: Issue) -> dict[str, Any]:
    """The statement of what was found about `digest`, by which policy, and until when that holds.

    Raises:
        ValueError: a time has no zone.
    """
    predicate = {
        **to_plain(issue),
        **to_plain(facts.natural_apart()),
        "not_covered": not_covered(facts.coverage, facts.modality),
    }
    return _statement(issue.name, digest, VERDICT_TYPE, predicate)


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
    gate: Gated | None = None,
    served: ServedForm | None = None,
) -> dict[str, Any]:
    """The statement that `digest` may be served as `name` `version` until its verdict expires.

    Args:
        gate: where the gate only warns: that, and what it would have done otherwise.
        served: the file that stands for the weights where they are not served themselves.

    Raises:
        ValueError: a time has no zone.
    """
    predicate = {
        "name": name,
        "version": version,
        "verdict_id": verdict_id,
        "verdict": str(verdict),
        "policy_digest": policy_digest,
        "issued_at": iso(issued_at),
        "expires_at": iso(expires_at),
        **({} if gate is None else {"gate": to_plain(gate)}),
        **({} if served is None else {"served": to_plain(served)}),
    }
    return _statement(name, digest, RELEASE_TYPE, predicate)


def _statement(name: str, digest: str, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": predicate,
    }
