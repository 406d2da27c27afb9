"""Who compares the ledger with its checkpoints while another process writes sees no fault."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from guard.attest import acts
from guard.attest.keys import TrustedKeys
from guard.flow._seal import open_ledger, record
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.store.session import make_engine
from tests import postgres
from tests.flow.place import Place


@pytest.fixture(params=["sqlite", "postgresql"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guard]:
    made = Place(tmp_path).guard
    if request.param == "postgresql":
        made = replace(made, engine=make_engine(postgres.migrated()))
    yield made
    made.engine.dispose()


def revocation(guard: Guard) -> acts.Act:
    return acts.Act(
        act_id=uuid.uuid4().hex,
        kind="revocation",
        subject="0" * 64,
        reason="a test",
        by="ops",
        at=guard.now(),
        keys={},
    )


def test_a_row_that_is_appended_during_the_comparison_is_not_missing(guard: Guard) -> None:
    assert guard.signer is not None
    open_ledger(guard)
    other = replace(guard, engine=make_engine(guard.settings.database_url))
    if guard.engine.dialect.name == "postgresql":
        other = replace(guard, engine=make_engine(guard.engine.url.render_as_string(False)))
    appended: list[str] = []

    def append(*given: object) -> None:
        """Before the rows are counted, another process appends one."""
        if "count(" in str(given[2]).lower() and not appended:
            appended.append(str(given[2]))
            record(other, revocation(other))

    event.listen(guard.engine, "before_cursor_execute", append)
    found = standing(guard)

    assert appended
    assert found.broken == ()
    other.engine.dispose()


def test_a_first_key_that_is_made_during_the_comparison_counts(guard: Guard) -> None:
    asked: list[TrustedKeys] = []

    def trusted() -> TrustedKeys:
        """After the file of trusted keys was read, another process makes a key and signs."""
        found = guard.make_trusted()
        if not asked:
            asked.append(found)
            assert guard.signer is not None
            open_ledger(guard)
        return found

    assert standing(replace(guard, make_trusted=trusted)).broken == ()
    assert asked == [TrustedKeys({})]
