"""The ledger: append-only, chained without gaps whoever writes, readable to the bit."""

import threading
import uuid
from datetime import UTC, timedelta, timezone

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from guard.core.errors import InputError, IntegrityMismatch
from guard.core.ledger import GENESIS, row_hash
from guard.core.states import Verdict
from guard.store import ledger
from guard.store.session import StoreConflict, transaction
from tests.store.rows import NOW, a_digest, a_scan, a_verdict, an_artifact

COLUMNS = (
    "seq",
    "id",
    "artifact_digest",
    "scan_id",
    "verdict",
    "envelope",
    "issued_at",
    "expires_at",
    "policy_digest",
)


def assert_chained(rows: list) -> None:  # type: ignore[type-arg]
    previous = GENESIS
    for number, row in enumerate(rows, start=1):
        assert row.seq == number
        assert row.previous == previous
        assert row.hash == row_hash(previous, {name: getattr(row, name) for name in COLUMNS})
        previous = row.hash


def test_each_row_continues_the_one_before(engine: Engine) -> None:
    with transaction(engine) as s:
        scan, digest = a_scan(s), an_artifact(s)
        made = [
            a_verdict(s, scan, digest, verdict)
            for verdict in (Verdict.HELD, Verdict.CLEARED, Verdict.REJECTED)
        ]
    with transaction(engine) as s:
        read = ledger.rows(s)

        assert made == read
        assert_chained(read)
        assert ledger.latest_for(s, digest) == made[-1]
        assert ledger.for_artifact(s, digest) == ledger.for_scan(s, scan.id) == made
        assert ledger.rows(s, after=1, limit=1) == [made[1]]
        assert ledger.get(s, made[0].id) == made[0]


def test_appends_from_many_threads_make_one_chain_even_when_some_fail(engine: Engine) -> None:
    with transaction(engine) as s:
        scan, digest = a_scan(s), an_artifact(s)
    errors: list[Exception] = []

    def write(worker: int) -> None:
        for turn in range(4):
            try:
                with transaction(engine) as s:
                    a_verdict(s, scan, digest)
                    if turn == worker % 4:
                        raise LookupError("this transaction is rolled back")
            except LookupError as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with transaction(engine) as s:
        rows = ledger.rows(s)

    assert (len(rows), len(errors)) == (18, 6)
    assert_chained(rows)


def test_the_same_verdict_twice_is_one_row(engine: Engine) -> None:
    with transaction(engine) as s:
        scan, digest, name = a_scan(s), an_artifact(s), uuid.uuid4().hex
        first = a_verdict(s, scan, digest, verdict_id=name)

        assert a_verdict(s, scan, digest, verdict_id=name, verdict=Verdict.REJECTED) == first
        assert len(ledger.rows(s)) == 1


def test_a_time_in_another_zone_gives_the_hash_of_the_same_moment(engine: Engine) -> None:
    tokyo = timezone(timedelta(hours=9))
    with transaction(engine) as s:
        a_verdict(s, a_scan(s), an_artifact(s), issued_at=NOW.astimezone(tokyo))
    with transaction(engine) as s:
        (row,) = ledger.rows(s)

    assert (row.issued_at, row.issued_at.tzinfo) == (NOW, UTC)
    assert_chained([row])


def test_a_verdict_needs_its_artifact_and_its_scan(engine: Engine) -> None:
    with pytest.raises(StoreConflict), transaction(engine) as s:
        a_verdict(s, a_scan(s), a_digest())
    with transaction(engine) as s, pytest.raises(InputError, match="holds no verdict"):
        ledger.get(s, "nobody")


@pytest.mark.threat("C22")
@pytest.mark.parametrize("table", ["verdicts", "evidence", "reviews", "revocations"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}"])
def test_what_was_said_can_be_neither_changed_nor_deleted(
    engine: Engine, table: str, statement: str
) -> None:
    _one_of_each(engine)
    column = {"evidence": "version"}.get(table, "id")
    value = "9" if table == "evidence" else "'x'"

    with pytest.raises(StoreConflict, match="append-only"), transaction(engine) as s:
        s.execute(text(statement.format(table, column, value)))
    with transaction(engine) as s:
        assert s.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1


@pytest.mark.threat("C22")
def test_a_row_cannot_be_replaced_or_truncated_either(engine: Engine) -> None:
    _one_of_each(engine)
    if engine.dialect.name == "sqlite":
        statement = "INSERT OR REPLACE INTO verdicts SELECT * FROM verdicts"
    else:
        statement = "TRUNCATE verdicts CASCADE"

    with pytest.raises(StoreConflict, match="append-only"), transaction(engine) as s:
        s.execute(text(statement))


def past_the_trigger(s: Session, statement: str) -> None:
    """Change verdicts as only the database's owner can."""
    disable = (
        "DROP TRIGGER verdicts_no_update"
        if s.get_bind().dialect.name == "sqlite"
        else "ALTER TABLE verdicts DISABLE TRIGGER USER"
    )
    s.execute(text(disable))
    s.execute(text(statement))


@pytest.mark.threat("C25")
def test_a_verdict_the_code_does_not_know_is_no_verdict(engine: Engine) -> None:
    with transaction(engine) as s:
        row = a_verdict(s, a_scan(s), an_artifact(s))
        past_the_trigger(s, "UPDATE verdicts SET verdict = 'clean'")

        with pytest.raises(IntegrityMismatch, match="'clean'"):
            ledger.get(s, row.id)


def test_a_broken_envelope_reads_as_an_empty_one(engine: Engine) -> None:
    with transaction(engine) as s:
        row = a_verdict(s, a_scan(s), an_artifact(s))
        past_the_trigger(s, "UPDATE verdicts SET envelope = '{'")

        assert ledger.get(s, row.id).envelope == {}


def _one_of_each(engine: Engine) -> None:
    from guard.core.evidence import Evidence, Outcome
    from guard.store import evidence, reviews, revocations
    from guard.store.rows import Decided

    with transaction(engine) as s:
        digest = an_artifact(s)
        row = a_verdict(s, a_scan(s), digest, Verdict.HELD)
        evidence.add(
            s,
            Evidence(
                artifact=digest,
                method="m",
                version=1,
                parameters={},
                cleanset="c" * 64,
                seed=0,
                outcome=Outcome.NOTHING,
                families=("patch",),
            ),
            NOW,
        )
        reviews.add(
            s,
            review_id="r",
            verdict_id=row.id,
            reviewer="bob",
            decision=Decided.REJECT,
            reason="no",
            now=NOW,
        )
        revocations.add(s, revocation_id="r", digest=digest, reason="no", by="bob", now=NOW)
