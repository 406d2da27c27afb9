"""Another policy over everything that is stored: what would change, and why."""

from pathlib import Path

import pytest

from guard.core.states import Verdict
from guard.flow import rescan, simulate
from guard.policy import DetectorRule
from guard.store import ledger
from guard.store.session import reading
from tests.flow.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_nothing_changes_by_the_policy_in_force(registry: Registry) -> None:
    registry.upload("one")
    registry.upload("two", seed=1)

    found = simulate.simulate(registry.place.guard, registry.place.guard.policy)

    assert (found.artifacts, found.changes) == (2, ())
    assert found.counts == {("cleared", "cleared"): 2}


@pytest.mark.row(28)
def test_what_would_flip_is_named_with_the_reasons_and_nothing_is_written(
    registry: Registry,
) -> None:
    first = registry.upload("model")
    guard = registry.place.guard
    registry.obey(review_always=True)
    stricter = registry.place.guard.policy

    found = simulate.simulate(guard, stricter)

    (change,) = found.changes
    assert (change.before, change.after, change.served) == (Verdict.CLEARED, Verdict.HELD, True)
    assert (change.name, change.scan_id) == ("model", first)
    assert change.reasons
    assert len(registry.place.verdicts(first)) == 1
    registry.pass_time(hours=7)
    rescan.renew(registry.place.guard)
    registry.work()
    assert registry.place.scan(first).verdict_id != registry.place.verdicts(first)[0].id
    with reading(guard.engine) as session:
        after = ledger.get(session, registry.place.scan(first).verdict_id or "")
    assert after.verdict is change.after


def test_where_evidence_is_missing_only_a_re_scan_can_tell(registry: Registry) -> None:
    registry.upload("model")
    detectors = dict(registry.place.guard.policy.detectors)
    registry.obey(detectors={**detectors, "mesa": DetectorRule(required=False)})

    found = simulate.simulate(registry.place.guard, registry.place.guard.policy)

    assert found.counts == {("cleared", simulate.MISSING): 1}
    assert [change.after for change in found.changes] == [None]
