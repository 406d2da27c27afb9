"""The soak's own judgement: its schedule, and what it takes for an answer that can be read."""

import pytest

from benchmarks.soak import schedule
from benchmarks.soak.books import readable
from benchmarks.soak.kinds import KINDS


def test_a_seed_draws_the_same_uploads_and_kills_and_every_kind_and_part_once() -> None:
    some = schedule.uploads(60, 100.0, 3)
    kills = schedule.kills(20, 100.0, 3)

    assert some == schedule.uploads(60, 100.0, 3)
    assert some != schedule.uploads(60, 100.0, 4)
    assert kills == schedule.kills(20, 100.0, 3)
    assert {one.kind for one in some} == set(KINDS)
    assert {one.part for one in kills} == set(schedule.KILLED)
    assert [one.at for one in some] == sorted(one.at for one in some)


@pytest.mark.parametrize(
    "sentence",
    ["The file ends 11952 bytes too early; upload it again.", "Cleared under policy soak."],
)
def test_a_sentence_can_be_read(sentence: str) -> None:
    assert readable(sentence)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unavailable",
        "Traceback (most recent call last):\n  File ...",
        "OperationalError: (psycopg.OperationalError) connection refused.",
        "<botocore.response.StreamingBody object at 0x7f0000000000>.",
    ],
)
def test_what_a_program_wrote_for_itself_is_no_answer(text: str) -> None:
    assert not readable(text)
