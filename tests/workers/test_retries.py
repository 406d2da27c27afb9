"""The one table of what happens after an error."""

import pytest

from guard.core.errors import (
    ArtifactRejected,
    InputError,
    IntegrityMismatch,
    LeaseLost,
    MethodFailed,
    NotServable,
    Unavailable,
)
from guard.flow.run_stage import MAX_CRASHES
from workers.retries import LONGEST_PAUSE, PATIENCE_SECONDS, after


@pytest.mark.row(55)
def test_a_world_that_is_away_is_waited_for_with_growing_pauses() -> None:
    pauses = [after(Unavailable("S3 is away"), attempts=n, waited=0).pause for n in range(1, 10)]

    assert pauses == sorted(pauses)
    assert max(pauses) == LONGEST_PAUSE
    assert (
        after(Unavailable("S3 is away"), attempts=50, waited=PATIENCE_SECONDS - 1).what == "later"
    )


@pytest.mark.row(55)
@pytest.mark.threat("C16")
def test_a_world_that_stays_away_ends_in_a_dead_letter() -> None:
    assert after(Unavailable("S3 is away"), attempts=3, waited=PATIENCE_SECONDS + 1).what == "bury"


def test_a_lost_lease_drops_the_message() -> None:
    assert after(LeaseLost("taken over"), attempts=1, waited=0).what == "drop"


@pytest.mark.parametrize("error", [InputError("x"), IntegrityMismatch("x"), NotServable("x")])
def test_what_another_try_cannot_mend_is_buried_at_once(error: Exception) -> None:
    assert after(error, attempts=1, waited=0).what == "bury"


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), MethodFailed("crash"), ArtifactRejected("late")]
)
def test_the_unknown_gets_a_few_tries(error: Exception) -> None:
    said = [after(error, attempts=n, waited=0).what for n in range(1, MAX_CRASHES + 2)]

    assert said == ["later"] * (MAX_CRASHES - 1) + ["bury"] * 2
