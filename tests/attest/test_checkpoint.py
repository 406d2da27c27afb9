"""Checkpoints and acts: read back as they were signed, and every change is found."""

import dataclasses
from typing import Any

import pytest

from guard.attest import acts, dsse, links
from guard.attest.checkpoint import Checkpoint, Head, Heads, read_line, read_trail, write_line
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.views import read_release, read_verdict
from guard.core.digests import json_digest, sha256
from guard.core.errors import IntegrityMismatch
from guard.core.ledger import DONE, GENESIS, act_hash
from guard.store.rows import LedgerActRow
from tests.attest.making import DIGEST, NOW, OTHER, a_statement


def a_checkpoint(number: int, previous: str = GENESIS, **fields: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "heads": Heads(verdicts=Head(seq=number, hash=DIGEST)),
        "accepted": Heads(),
        "revoked": (),
        "at": NOW,
        **fields,
    }
    return Checkpoint(number=number, previous=previous, **values)


def a_trail(signer: Signer, count: int = 3) -> list[bytes]:
    lines: list[bytes] = []
    for number in range(1, count + 1):
        previous = sha256(lines[-1]) if lines else GENESIS
        revoked = (OTHER,) if number == 2 else ()
        lines.append(write_line(a_checkpoint(number, previous, revoked=revoked), signer))
    return lines


def file_of(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_a_trail_is_read_back(signer: Signer, trusted: TrustedKeys) -> None:
    lines = a_trail(signer)
    trail = read_trail(file_of(lines), trusted)

    assert trail.problems == ()
    assert trail.newest == read_line(lines[-1], trusted)
    assert (trail.digest, trail.line) == (sha256(lines[-1]), lines[-1])
    assert trail.revoked == {OTHER}
    assert read_trail(b"", trusted) == read_trail(b"torn", trusted)


def test_a_line_without_its_end_is_not_read(signer: Signer, trusted: TrustedKeys) -> None:
    lines = a_trail(signer)
    trail = read_trail(file_of(lines[:2]) + lines[2], trusted)

    assert trail.problems == ()
    assert trail.newest is not None
    assert trail.newest.number == 2
    assert trail.size == len(file_of(lines[:2]))


@pytest.mark.parametrize("gone", [0, 1])
def test_a_line_that_is_gone_or_moved_is_found(
    signer: Signer, trusted: TrustedKeys, gone: int
) -> None:
    lines = a_trail(signer, 4)
    moved = [*lines[gone + 1 :], lines[gone]]

    assert read_trail(file_of(moved), trusted).problems
    left = [line for number, line in enumerate(lines) if number != gone + 1]
    assert "does not continue" in read_trail(file_of(left), trusted).problems[0]


def test_every_flipped_bit_of_the_newest_line_is_found(
    signer: Signer, trusted: TrustedKeys
) -> None:
    (line,) = a_trail(signer, 1)
    for at in range(0, len(line), 7):
        changed = bytearray(line)
        changed[at] ^= 1
        trail = read_trail(bytes(changed) + b"\n", trusted)

        assert trail.problems, at


def test_a_stranger_signs_no_checkpoint(
    signer: Signer, trusted: TrustedKeys, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Signer.load_or_create(tmp_path_factory.mktemp("stranger") / "key.pem")
    lines = a_trail(signer)
    forged = write_line(a_checkpoint(4, sha256(lines[-1])), stranger)

    assert "No trusted key" in read_trail(file_of([*lines, forged]), trusted).problems[0]


def test_an_accepted_ledger_ends_the_problems_before_it(
    signer: Signer, trusted: TrustedKeys
) -> None:
    heads = Heads(verdicts=Head(seq=9, hash=DIGEST))
    lines = [*a_trail(signer)[1:], b"garbage"]
    lines.append(
        write_line(a_checkpoint(7, sha256(b"garbage"), accepted=heads, heads=heads), signer)
    )
    trail = read_trail(file_of(lines), trusted)

    assert trail.problems == ()
    assert trail.revoked == {OTHER}
    assert read_trail(file_of(lines[:-1]), trusted).problems


ACT = acts.Act(
    act_id="1" * 32, kind="revocation", subject=DIGEST, reason="r", by="bob", at=NOW, keys={}
)


def a_row(signer: Signer, act: acts.Act = ACT, **fields: Any) -> LedgerActRow:
    values: dict[str, Any] = {
        "seq": 1,
        "id": act.act_id,
        "kind": act.kind,
        "subject": act.subject,
        "envelope": dsse.sign(acts.act_statement(act), signer),
        "at": act.at,
        **fields,
    }
    return LedgerActRow(**values, previous=GENESIS, hash=act_hash(GENESIS, values))


def unchained(*rows: LedgerActRow) -> list[str]:
    return list(links.broken(rows, acts.expected_act_hash, acts.NOUN))


@pytest.mark.parametrize("kind", acts.TYPES)
def test_an_act_is_read_back_and_is_nothing_else(signer: Signer, kind: str) -> None:
    act = dataclasses.replace(ACT, kind=kind)
    if kind == DONE:
        entry = {"act": "withdraw", "principal": "bob"}
        act = dataclasses.replace(act, entry=entry, subject=json_digest(entry))
    statement = acts.act_statement(act)

    assert acts.read_act(statement) == act
    for read in (read_verdict, read_release):
        with pytest.raises(IntegrityMismatch):
            read(statement)
    with pytest.raises(IntegrityMismatch):
        acts.read_act(a_statement())


def test_an_act_of_one_kind_does_not_pass_for_another(signer: Signer) -> None:
    statement = acts.act_statement(ACT)
    with pytest.raises(IntegrityMismatch):
        acts.read_act({**statement, "predicate": {**statement["predicate"], "kind": "trust"}})
    with pytest.raises(IntegrityMismatch):
        acts.read_act({**statement, "predicate": {"kind": "revocation"}})


@pytest.mark.parametrize(
    ("name", "value"), [("id", "2" * 32), ("kind", "trust"), ("subject", OTHER)]
)
def test_a_column_of_an_act_that_was_changed_is_found(
    signer: Signer, trusted: TrustedKeys, name: str, value: str
) -> None:
    row = a_row(signer)
    assert unchained(row) == acts.unsigned([row], trusted) == []

    column: dict[str, Any] = {name: value}
    changed = dataclasses.replace(row, **column)
    assert len(unchained(changed)) == 1
    assert len(acts.unsigned([a_row(signer, **column)], trusted)) == 1  # hashed anew
    assert len(acts.unsigned([row], TrustedKeys({}))) == 1
    assert len(unchained(dataclasses.replace(row, seq=2, previous=OTHER))) == 3
