"""What the guard signs beside verdicts and releases, written and read back strictly.

A revocation, an act about the ledger or its keys, and what a principal did. Each has a predicate
type of its own, so that none passes for another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.attest.statement import STATEMENT_TYPE
from guard.attest.views import open_statement
from guard.core.digests import json_digest
from guard.core.errors import IntegrityMismatch
from guard.core.ledger import DONE, act_hash
from guard.core.plain import LEFT_OUT, Text, from_plain, to_plain

REVOCATION_TYPE = "https://registry-guard.dev/revocation/v1"
KEY_TYPE = "https://registry-guard.dev/key/v1"
LEDGER_TYPE = "https://registry-guard.dev/ledger/v1"
DONE_TYPE = "https://registry-guard.dev/act/v1"
NOUN = "Ledger act"

#: What is signed of a row of what principals did: all but its number.
ENTRY = (
    "id",
    "act",
    "principal",
    "role",
    "authenticated",
    "token_id",
    "subject",
    "detail",
    "facts",
    "at",
)

#: Predicate type of each kind of act, and of nothing else.
TYPES: Mapping[str, str] = {
    "revocation": REVOCATION_TYPE,
    "trust": KEY_TYPE,
    "distrust": KEY_TYPE,
    "open": LEDGER_TYPE,
    "accept": LEDGER_TYPE,
    DONE: DONE_TYPE,
}


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act that the ledger keeps beside its verdicts.

    `kind` is a key of `TYPES`. `subject` is the SHA-256 that the act is about: of the weights for a
    revocation, of the public key for `trust` and `distrust`, of `entry` for what a principal did,
    zeros for an act about the ledger. `keys` holds public keys by key id, in hexadecimal: those
    that an act makes trusted. `entry` is what a principal did, None for every other kind.
    """

    act_id: Text
    kind: Text
    subject: Text
    reason: str
    by: Text
    at: datetime
    keys: Mapping[str, Any]
    entry: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)


class DoneLike(Protocol):
    """A row of what principals did, wherever it was read from."""

    @property
    def id(self) -> str: ...
    @property
    def act(self) -> str: ...
    @property
    def principal(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def authenticated(self) -> bool: ...
    @property
    def token_id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def at(self) -> datetime: ...


class ActRowLike(Protocol):
    """A row of the ledger's acts, wherever it was read from."""

    @property
    def seq(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def envelope(self) -> Mapping[str, Any]: ...
    @property
    def previous(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def at(self) -> datetime: ...


def of_done(row: DoneLike) -> Act:
    """The act that seals a row of what principals did."""
    entry = to_plain({name: getattr(row, name) for name in ENTRY})
    return Act(
        act_id=row.id,
        kind=DONE,
        subject=json_digest(entry),
        reason=row.detail,
        by=row.principal,
        at=row.at,
        keys={},
        entry=entry,
    )


def act_statement(act: Act) -> dict[str, Any]:
    """The in-toto statement of an act.

    Raises:
        ValueError: its time has no zone.
    """
    predicate = to_plain(act)
    del predicate["subject"]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": act.kind, "digest": {"sha256": act.subject}}],
        "predicateType": TYPES[act.kind],
        "predicate": predicate,
    }


def read_act(statement: Mapping[str, Any]) -> Act:
    """Read an act whose signature the caller has verified.

    Raises:
        IntegrityMismatch: it is another kind of statement, or a required field is missing or of a
            wrong type.
    """
    predicate = statement.get("predicate")
    kind = str(predicate.get("kind")) if isinstance(predicate, dict) else ""
    digest, predicate = open_statement(statement, TYPES.get(kind, ""))
    try:
        act = from_plain(Act, {**predicate, "subject": digest})
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityMismatch(
            "The signed act lacks a required field.", code="bad_statement"
        ) from error
    if act.kind == DONE and (act.entry is None or json_digest(dict(act.entry)) != act.subject):
        raise IntegrityMismatch("The signed act is about another entry.", code="other_subject")
    return act


def expected_act_hash(row: ActRowLike) -> str:
    """What `row.hash` must be."""
    return act_hash(
        row.previous,
        {
            "seq": row.seq,
            "id": row.id,
            "kind": row.kind,
            "subject": row.subject,
            "envelope": dict(row.envelope),
            "at": row.at.astimezone(UTC),
        },
    )


def unsigned(rows: Iterable[ActRowLike], trusted: TrustedKeys) -> list[str]:
    """Every act that no trusted key signed, or whose columns differ from what was signed."""
    problems: list[str] = []
    for row in rows:
        try:
            act = read_act(dsse.verify(row.envelope, trusted))
        except IntegrityMismatch as error:
            problems.append(f"{NOUN} {row.seq}: {error.sentence}")
            continue
        stored = (row.id, row.kind, row.subject, row.at)
        if stored != (act.act_id, act.kind, act.subject, act.at):
            problems.append(f"{NOUN} {row.seq} differs from what was signed.")
    return problems
