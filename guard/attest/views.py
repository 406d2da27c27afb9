"""Signed statements read back, strictly.

A missing word or a wrong type is no statement of the guard's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from guard.attest.statement import RELEASE_TYPE, STATEMENT_TYPE, VERDICT_TYPE, parse_time
from guard.core.digests import is_digest
from guard.core.errors import IntegrityMismatch
from guard.core.evidence import AsrEstimate, Target
from guard.core.states import Verdict


@dataclass(frozen=True, kw_only=True)
class VerdictView:
    """What a signed verdict says."""

    digest: str
    verdict_id: str
    verdict: Verdict
    scan_id: str
    name: str
    policy_name: str
    policy_digest: str
    coverage: tuple[str, ...]
    not_covered: tuple[str, ...]
    known_gaps: Mapping[str, Any] | None
    score: float | None
    target: Target
    asr: AsrEstimate | None
    asr_upper: float | None
    calibration: str | None
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    basis: Mapping[str, Any]
    parent: str | None
    purification: Mapping[str, Any] | None
    cleanset: str | None
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """What a signed release says."""

    digest: str
    name: str
    version: str
    verdict_id: str
    verdict: Verdict
    policy_digest: str
    issued_at: datetime
    expires_at: datetime


def read_verdict(statement: Mapping[str, Any]) -> VerdictView:
    """Read a verdict whose signature the caller has verified.

    Raises:
        IntegrityMismatch: it is another kind of statement, or a word is missing or of the wrong
            type.
    """
    digest, said = _open(statement, VERDICT_TYPE)
    try:
        return VerdictView(
            digest=digest,
            verdict_id=_text(said["verdict_id"]),
            verdict=Verdict(said["verdict"]),
            scan_id=_text(said["scan_id"]),
            name=_text(said["name"]),
            policy_name=_text(said["policy"]["name"]),
            policy_digest=_digest(said["policy"]["digest"]),
            coverage=_texts(said["coverage"]),
            score=_number(said["score"]),
            target=_target(said["target"]),
            asr=None if said["asr"] is None else AsrEstimate(**said["asr"]),
            # Verdicts signed before these words existed lack them.
            asr_upper=_number(said.get("asr_upper")),
            calibration=None if said.get("calibration") is None else _digest(said["calibration"]),
            not_covered=_texts(said.get("not_covered", [])),
            known_gaps=_gaps(said.get("known_gaps")),
            reasons=_texts(said["reasons"]),
            evidence=_texts(said["evidence"]),
            basis=_basis(said["basis"]),
            parent=None if said["parent"] is None else _digest(said["parent"]),
            purification=_repair(said.get("purification")),
            cleanset=None if said["cleanset"] is None else _digest(said["cleanset"]),
            issued_at=_time(said["issued_at"]),
            expires_at=_time(said["expires_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad("The signed verdict lacks a word it must have.") from error


def read_release(statement: Mapping[str, Any]) -> ReleaseView:
    """Read a release whose signature the caller has verified. Raises as `read_verdict`."""
    digest, said = _open(statement, RELEASE_TYPE)
    try:
        return ReleaseView(
            digest=digest,
            name=_text(said["name"]),
            version=_text(said["version"]),
            verdict_id=_text(said["verdict_id"]),
            verdict=Verdict(said["verdict"]),
            policy_digest=_digest(said["policy_digest"]),
            issued_at=_time(said["issued_at"]),
            expires_at=_time(said["expires_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad("The release statement lacks a word it must have.") from error


def _open(statement: Mapping[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    """The digest and the predicate of a statement of this kind."""
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != kind:
        raise IntegrityMismatch("The signed statement is of another kind.", code="other_kind")
    subjects, predicate = statement.get("subject"), statement.get("predicate")
    # Exactly one subject: with two, whoever reads the first and whoever reads the last would
    # disagree.
    if not isinstance(predicate, dict) or not isinstance(subjects, list) or len(subjects) != 1:
        raise _bad("The signed statement must have one subject and a predicate.")
    try:
        return _digest(subjects[0]["digest"]["sha256"]), predicate
    except (KeyError, TypeError) as error:
        raise _bad("The signed statement's subject has no SHA-256.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is needed")
    return value


def _digest(value: Any) -> str:
    if not is_digest(value):
        raise TypeError("a SHA-256 is needed")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("a list of texts is needed")
    return tuple(value)


def _number(value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise TypeError("a number is needed")
    return None if value is None else float(value)


def _target(value: Any) -> Target:
    if value is not None and type(value) not in (int, str):
        raise TypeError("a class, a word or nothing is needed")
    return value


def _time(value: Any) -> datetime:
    moment = parse_time(value)
    if moment is None:
        raise TypeError("a UTC time is needed")
    return moment


def _basis(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.get("kind") not in ("policy", "review"):
        raise TypeError("the basis must be a policy's or a review's")
    if value["kind"] == "review":
        for key in ("reviewer", "reason", "reviewed_verdict"):
            _text(value[key])
    return value


def _gaps(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or type(value.get("measured")) is not bool:
        raise TypeError("known gaps must say whether they were measured")
    _text(value.get("sentence"))
    return value


def _repair(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not _texts(value["defenses"]):
        raise TypeError("a repair must name who made it")
    if not isinstance(value["replayed"], list) or not isinstance(value["unproved"], list):
        raise TypeError("a repair must say what was asked of it")
    return value


def _bad(sentence: str) -> IntegrityMismatch:
    return IntegrityMismatch(sentence, code="bad_statement")
