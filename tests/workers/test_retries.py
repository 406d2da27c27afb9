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
from workers.retries import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE_SECONDS, Answer, after, pause

AWAY = Unavailable("S3 is away")


def answer(error: Exception, attempts: int = 1, outages: int = 0, waited: float = 0.0) -> Answer:
    return after(error, attempts=attempts, outages=outages, waited=waited)


def test_pauses_double_up_to_a_minute_and_half_of_each_is_left_to_chance() -> None:
    for tries, most in enumerate((2, 4, 8, 16, 32, 60, 60, 60), 1):
        drawn = [pause(tries) for _ in range(200)]

        assert most / 2 <= min(drawn) < 0.6 * most
        assert 0.9 * most < max(drawn) <= most
    assert pause(10_000) <= LONGEST_PAUSE
    assert pause(0) <= FIRST_PAUSE


@pytest.mark.row(55)
def test_a_world_that_is_away_is_waited_for_with_growing_pauses() -> None:
    pauses = [answer(AWAY, outages=n).pause for n in range(0, 6, 2)]

    assert pauses == sorted(pauses)
    assert LONGEST_PAUSE / 2 <= answer(AWAY, outages=9).pause <= LONGEST_PAUSE
    assert answer(AWAY, outages=50, waited=PATIENCE_SECONDS - 1).what == "later"


@pytest.mark.row(55)
@pytest.mark.threat("C16")
def test_a_world_that_stays_away_ends_in_a_dead_letter() -> None:
    assert answer(AWAY, outages=3, waited=PATIENCE_SECONDS + 1).what == "bury"


def test_a_lost_lease_drops_the_message() -> None:
    assert answer(LeaseLost("taken over")).what == "drop"


@pytest.mark.parametrize("error", [InputError("x"), IntegrityMismatch("x"), NotServable("x")])
def test_what_another_try_cannot_mend_is_buried_at_once(error: Exception) -> None:
    assert answer(error).what == "bury"


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), MethodFailed("crash"), ArtifactRejected("late")]
)
def test_the_unknown_gets_a_few_tries(error: Exception) -> None:
    said = [answer(error, attempts=n).what for n in range(1, MAX_CRASHES + 2)]

    assert said == ["later"] * (MAX_CRASHES - 1) + ["bury"] * 2
