"""Checkpoints: what the ledger's head was, signed and kept where the database cannot reach.

A checkpoint is one line: a DSSE envelope as canonical JSON. A file of them is a chain, since each
names the digest of the line before; so the newest line's signature vouches for all of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from guard.attest import dsse
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import STATEMENT_TYPE
from guard.attest.views import open_statement
from guard.core.digests import canonical_json, json_digest, sha256
from guard.core.errors import IntegrityMismatch
from guard.core.ledger import GENESIS
from guard.core.plain import Digest, from_plain, to_plain

CHECKPOINT_TYPE = "https://registry-guard.dev/checkpoint/v1"


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last row of a chain; `seq` 0 and a hash of zeros where there is none."""

    seq: int
    hash: Digest


NO_HEAD = Head(seq=0, hash=GENESIS)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The heads of both chains: of the verdicts and of the acts."""

    verdicts: Head = NO_HEAD
    acts: Head = NO_HEAD


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The heads at a time.

    `number` counts checkpoints from 1. `accepted` are heads that a person accepted as they were:
    what is wrong before them no longer stops anything. `revoked` are the digests that were revoked
    since the checkpoint before, so that a lost database does not lose them. `previous` is the
    SHA-256 of the line before, zeros for the first.
    """

    number: int
    heads: Heads
    accepted: Heads
    revoked: tuple[Digest, ...]
    previous: Digest
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Trail:
    """A file of checkpoints: the newest (None where there is none), with its line's digest.

    `revoked` are all digests that any line names, whether it holds or not: revoking needs no trust.
    `size` is the bytes of whole lines; a line without its end was being written when the power
    failed.
    """

    newest: Checkpoint | None = None
    digest: str = GENESIS
    line: bytes = b""
    revoked: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    size: int = 0


def write_line(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed line, without its line end."""
    predicate = to_plain(checkpoint)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": "ledger", "digest": {"sha256": json_digest(to_plain(checkpoint.heads))}}
        ],
        "predicateType": CHECKPOINT_TYPE,
        "predicate": predicate,
    }
    return canonical_json(dsse.sign(statement, signer))


def read_line(line: bytes, trusted: TrustedKeys) -> Checkpoint:
    """The checkpoint of a line that a trusted key signed.

    Raises:
        IntegrityMismatch: it is no line of a checkpoint, or no trusted key signed it.
    """
    return _checkpoint(dsse.verify(_envelope(line), trusted))


def read_trail(data: bytes, trusted: TrustedKeys) -> Trail:
    """Read a file of checkpoints, each line against the one before, and the newest's signature."""
    size = data.rfind(b"\n") + 1
    problems: list[str] = []
    newest, digest, line, revoked = None, GENESIS, b"", set[str]()
    for line in data[:size].split(b"\n")[:-1]:
        try:
            item = _checkpoint(dsse.payload(_envelope(line)))
        except IntegrityMismatch as error:
            problems.append(f"A line of the checkpoints was changed: {error.sentence}")
            digest = sha256(line)
            continue
        revoked.update(item.revoked)
        if item.accepted == item.heads:
            # A person took the ledger as it was, this file included. The lines behind this one
            # vouch for it, and the newest one's signature for them.
            problems.clear()
        elif newest is not None and (item.previous != digest or item.number <= newest.number):
            problems.append(f"Checkpoint {item.number} does not continue the one before it.")
        newest, digest = item, sha256(line)
    if newest is not None:
        try:
            read_line(line, trusted)
        except IntegrityMismatch as error:
            problems.append(f"The newest checkpoint does not hold: {error.sentence}")
    return Trail(
        newest=newest,
        digest=digest,
        line=line,
        revoked=frozenset(revoked),
        problems=tuple(problems),
        size=size,
    )


def _envelope(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise IntegrityMismatch("It is not JSON.", code="no_envelope") from error
    if not isinstance(value, dict):
        raise IntegrityMismatch("It is no JSON object.", code="no_envelope")
    return value


def _checkpoint(statement: Mapping[str, Any]) -> Checkpoint:
    digest, predicate = open_statement(statement, CHECKPOINT_TYPE)
    try:
        item = from_plain(Checkpoint, predicate)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityMismatch(
            "The checkpoint lacks a required field.", code="bad_statement"
        ) from error
    if digest != json_digest(to_plain(item.heads)):
        raise IntegrityMismatch("The checkpoint is about other heads.", code="other_subject")
    return item
