"""Read signed statements back, strictly: a missing field or one of a wrong type is an error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from guard.attest.statement import (
    OLDER_VERDICT_TYPE,
    RELEASE_TYPE,
    STATEMENT_TYPE,
    VERDICT_TYPE,
    Issue,
)
from guard.core.contracts import ServedForm
from guard.core.digests import is_digest
from guard.core.errors import IntegrityMismatch
from guard.core.plain import ADDED, Digest, Text, from_plain
from guard.core.states import Verdict
from guard.core.verdict import Gated, VerdictFacts


@dataclass(frozen=True, kw_only=True)
class VerdictView(Issue):
    """A signed verdict: the artifact's digest, the facts, and the circumstances.

    `not_covered` is as it was signed; the oldest verdicts lack it.
    """

    digest: Digest
    facts: VerdictFacts
    not_covered: tuple[str, ...] = field(default=(), metadata=ADDED)

    @property
    def verdict(self) -> Verdict:
        """The verdict itself."""
        return self.facts.verdict

    @property
    def gate(self) -> Gated | None:
        """The gate's mode when this was signed, if it only warned."""
        return self.facts.gate

    @property
    def policy_digest(self) -> str:
        """The digest of the policy that decided."""
        return self.policy.digest


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A signed release: the artifact `digest` may be served as `name` `version`.

    `served` is the file that stands for the weights, where they are not served themselves.
    """

    digest: Digest
    name: Text
    version: Text
    verdict_id: Text
    verdict: Verdict
    policy_digest: Digest
    issued_at: datetime
    expires_at: datetime
    gate: Gated | None = field(default=None, metadata=ADDED)
    served: ServedForm | None = field(default=None, metadata=ADDED)


def read_verdict(statement: Mapping[str, Any]) -> VerdictView:
    """Read a verdict whose signature the caller has verified.

    Raises:
        IntegrityMismatch: it is another kind of statement, or a required field is missing or of a
            wrong type.
    """
    digest, predicate = open_statement(statement, VERDICT_TYPE, OLDER_VERDICT_TYPE)
    try:
        return from_plain(VerdictView, {**predicate, "digest": digest, "facts": predicate})
    except (KeyError, TypeError, ValueError) as error:
        raise _bad("The signed verdict lacks a required field.") from error


def read_release(statement: Mapping[str, Any]) -> ReleaseView:
    """Read a release whose signature the caller has verified. Raises as `read_verdict`."""
    digest, predicate = open_statement(statement, RELEASE_TYPE)
    try:
        return from_plain(ReleaseView, {**predicate, "digest": digest})
    except (KeyError, TypeError, ValueError) as error:
        raise _bad("The release statement lacks a required field.") from error


def open_statement(statement: Mapping[str, Any], *kinds: str) -> tuple[str, dict[str, Any]]:
    """The digest and the predicate of a statement of one of these kinds."""
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") not in kinds:
        raise IntegrityMismatch("The signed statement is of another kind.", code="other_kind")
    subjects, predicate = statement.get("subject"), statement.get("predicate")
    # Exactly one subject: of two, one reader could take the first and another the last.
    if not isinstance(predicate, dict) or not isinstance(subjects, list) or len(subjects) != 1:
        raise _bad("The signed statement must have one subject and a predicate.")
    try:
        digest = subjects[0]["digest"]["sha256"]
    except (KeyError, TypeError) as error:
        raise _bad("The signed statement's subject has no SHA-256.") from error
    if not is_digest(digest):
        raise _bad("The signed statement's subject has no SHA-256.")
    return digest, predicate


def _bad(sentence: str) -> IntegrityMismatch:
    return IntegrityMismatch(sentence, code="bad_statement")
