"""The ledger's check finds every kind of tampering, and nothing where there is none."""

import copy
import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from guard.attest.chain import expected_hash, verify_chain
from guard.attest.keys import Signer, TrustedKeys
from guard.core.states import Verdict
from guard.store import ledger
from guard.store.rows import ArtifactKind, LedgerRow
from guard.store.session import make_engine, transaction
from tests import sqlite
from tests.attest.making import DIGEST, NOW, OTHER, Books, a_signer


@pytest.fixture
def rows(signer: Signer) -> tuple[LedgerRow, ...]:
    books = (
        Books(signer)
        .add(verdict=Verdict.REJECTED)
        .add(digest=OTHER)
        .add(verdict=Verdict.HELD)
        .add()
    )
    return books.rows


def rehash(rows: list[LedgerRow]) -> list[LedgerRow]:
    """What a forger does who knows how the chain is made."""
    made: list[LedgerRow] = []
    for row in rows:
        linked = dataclasses.replace(row, previous=made[-1].hash if made else rows[0].previous)
        made.append(dataclasses.replace(linked, hash=expected_hash(linked)))
    return made


def test_an_untouched_ledger_has_no_problems(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    assert verify_chain(rows, trusted) == []
    assert verify_chain([], trusted) == []
    assert verify_chain(rows, trusted, head=(2, rows[1].hash)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verdict", Verdict.CLEARED),
        ("artifact_digest", "9" * 64),
        ("scan_id", "9" * 32),
        ("id", "9" * 32),
        ("policy_digest", "9" * 64),
        ("expires_at", NOW + timedelta(days=999)),
        ("issued_at", NOW - timedelta(days=1)),
    ],
)
def test_a_changed_column_is_found_even_when_the_whole_chain_is_hashed_anew(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys, name: str, value: Any
) -> None:
    changed = [dataclasses.replace(rows[0], **{name: value}), *rows[1:]]

    assert any("hash" in problem for problem in verify_chain(changed, trusted))
    assert verify_chain(rehash(changed), trusted) == [
        f"Ledger row 1: its {name} differs from what was signed."
    ]


@pytest.mark.row(36)
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_row_that_is_gone_is_missed(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys, gone: int
) -> None:
    left = [row for number, row in enumerate(rows) if number != gone]

    assert f"Ledger row {gone + 1} is missing: row {gone + 2} follows row {gone}." in verify_chain(
        left, trusted
    )


def test_rows_cut_off_at_the_end_are_missed_by_whoever_noted_the_head(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    assert verify_chain(rows[:-1], trusted) == []
    assert "cut off" in verify_chain(rows[:-1], trusted, head=(4, rows[3].hash))[0]
    assert "cut off" in verify_chain([], trusted, head=(4, rows[3].hash))[0]


def test_rows_in_another_order_and_rows_twice_are_found(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    assert verify_chain([rows[1], rows[0], *rows[2:]], trusted) != []
    assert any("repeats" in problem for problem in verify_chain([*rows, rows[0]], trusted))


def test_a_row_that_follows_another_ledger_is_found(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    first = dataclasses.replace(rows[0], previous="9" * 64)
    middle = dataclasses.replace(rows[2], previous=rows[0].hash)
    middle = dataclasses.replace(middle, hash=expected_hash(middle))

    assert verify_chain(rehash([first, *rows[1:]]), trusted) == [
        "Ledger row 1 does not continue the row before it."
    ]
    assert verify_chain([*rows[:2], middle], trusted) == [
        "Ledger row 3 does not continue the row before it."
    ]


def test_an_envelope_of_another_verdict_is_found(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    swapped = rehash([dataclasses.replace(rows[0], envelope=rows[3].envelope), *rows[1:]])

    assert any("verdict differs" in problem for problem in verify_chain(swapped, trusted))


def test_a_forged_or_broken_signature_is_found(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys, tmp_path: Path
) -> None:
    forged = Books(a_signer(tmp_path)).add().rows
    broken: dict[str, Any] = copy.deepcopy(dict(rows[0].envelope))
    broken["signatures"][0]["sig"] = broken["signatures"][0]["sig"][::-1]
    for envelope in (forged[0].envelope, broken, {}):
        found = verify_chain(
            rehash([dataclasses.replace(rows[0], envelope=envelope), *rows[1:]]), trusted
        )

        assert len(found) == 1
        assert found[0].startswith("Ledger row 1: ")


def test_all_problems_are_told_not_only_the_first(
    rows: tuple[LedgerRow, ...], trusted: TrustedKeys
) -> None:
    bad = [dataclasses.replace(row, verdict=Verdict.PURIFIED) for row in rows]

    assert len(verify_chain(bad, trusted)) == 2 * len(rows)


def test_what_the_store_wrote_verifies_and_what_sql_changed_does_not(
    signer: Signer, trusted: TrustedKeys, tmp_path: Path
) -> None:
    from guard.store import artifacts, scans

    engine = make_engine(sqlite.migrated(tmp_path))
    books = Books(signer).add().add(verdict=Verdict.REJECTED)
    with transaction(engine) as s:
        artifacts.put(s, digest=DIGEST, size=1, kind=ArtifactKind.CANONICAL, now=NOW)
        scans.insert(s, scan_id="2" * 32, bucket="b", key="k", version_id="1", name="m", now=NOW)
        for row in books.rows:
            ledger.append(
                s,
                verdict_id=row.id,
                artifact=DIGEST,
                scan_id="2" * 32,
                verdict=row.verdict,
                envelope=row.envelope,
                issued_at=row.issued_at,
                expires_at=row.expires_at,
                policy_digest=row.policy_digest,
            )
    with transaction(engine) as s:
        assert ledger.rows(s) == list(books.rows)
        assert verify_chain(ledger.rows(s), trusted) == []
        s.execute(text("DROP TRIGGER verdicts_no_update"))
        s.execute(text("UPDATE verdicts SET verdict = 'cleared'"))
        problems = verify_chain(ledger.rows(s), trusted)
    engine.dispose()

    assert "Ledger row 2: its verdict differs from what was signed." in problems
