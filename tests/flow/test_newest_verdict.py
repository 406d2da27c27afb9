"""The newest verdict on an artifact counts, whichever of its uploads it was given on."""

from pathlib import Path

from guard.core.states import ScanState
from guard.flow import review
from tests.flow.registry import Registry


def test_nothing_is_published_by_a_clearing_that_is_older_than_a_rejection_of_the_same_bytes(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path)
    registry.obey(review_always=True)
    first, second = registry.upload("model"), registry.upload("other", by="carol")
    review.approve(registry.place.guard, first, "bob", "fine by me")

    review.reject(registry.place.guard, second, "bob", "on second thought")
    registry.work()

    assert registry.served() == {}
    assert registry.active() == []
    assert registry.scan(first).state is ScanState.FAILED
    assert "rejected" in (registry.scan(first).error or "")
