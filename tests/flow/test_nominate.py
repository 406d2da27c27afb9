"""An event becomes a row and a message, or a row with the reason why not; nothing is looked at."""

from pathlib import Path

import pytest

from guard.core.errors import InputError, Unavailable
from guard.events import Nomination
from guard.events.bucket import Bucket, make_client
from guard.flow.nominate import accept, nominate
from guard.store.rows import NominationState
from guard.store.session import make_engine
from tests.flow.intake import START, World, new_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Its bucket is out of reach: nominating must not need it."""
    away = Bucket(
        make_client(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"), "models"
    )
    return new_world(tmp_path, away)


def test_a_nomination_is_a_row_and_a_message_with_its_id(world: World) -> None:
    new = world.nominate("in/a/m.pt", "v1")

    row = world.nomination(new)
    assert (row.bucket, row.key, row.version_id, row.source) == ("models", "in/a/m.pt", "v1", "s3")
    assert (row.state, row.received_at) == (NominationState.NEW, START)
    assert [message.payload for message in world.messages("receive")] == [{"nomination_id": new}]


@pytest.mark.parametrize(
    ("wanted", "state", "says"),
    [
        (
            Nomination("other", "in/a/m.pt", "v", "s3"),
            NominationState.IGNORED,
            "GUARD_INTAKE_BUCKETS",
        ),
        (
            Nomination("models", "in/a/m.pt", "v", "s3", removed=True),
            NominationState.IGNORED,
            "removed",
        ),
        (Nomination("models", "in/a/README.md", "v", "s3"), NominationState.IGNORED, "not vetted"),
        (Nomination("models", "in/a/", "v", "s3"), NominationState.IGNORED, "folder mark"),
        (
            Nomination("models", "in/a\0/m.pt", "v", "s3"),
            NominationState.REFUSED,
            "cannot be shown",
        ),
        (Nomination("models", "\ud800", None, "s3"), NominationState.REFUSED, "cannot be shown"),
        (Nomination("models", "in/" + "a" * 2000, None, "s3"), NominationState.REFUSED, "1024"),
        (Nomination("mod\x1bels", "k", "\x00", "s3"), NominationState.REFUSED, "cannot be shown"),
    ],
)
def test_what_leads_nowhere_is_recorded_with_the_reason_and_no_message(
    world: World, wanted: Nomination, state: NominationState, says: str
) -> None:
    (new,) = nominate(world.engine, [wanted], START, buckets=["models"])

    row = world.nomination(new)
    assert row.state is state
    assert says in row.reason
    assert all(word.isprintable() for word in (row.bucket, row.key, row.version_id or ""))
    assert world.messages("receive") == []


@pytest.mark.threat("C12")
def test_without_an_allowed_bucket_nothing_is_nominated(world: World) -> None:
    nominate(world.engine, [Nomination("models", "in/a/m.pt", "v", "s3")], START, buckets=[])

    assert world.messages("receive") == []


def test_the_same_object_is_one_nomination_while_it_waits(world: World) -> None:
    first, again = world.nominate("in/a/m.pt", "v1"), world.nominate("in/a/m.pt", "v1")
    other, none = world.nominate("in/a/m.pt", "v2"), world.nominate("in/a/m.pt")

    assert first == again
    assert len({first, other, none}) == 3
    assert len(world.messages("receive")) == 3


def test_a_batch_is_one_commit_in_order(world: World) -> None:
    batch = [Nomination("models", f"in/{number}/m.pt", None, "s3") for number in range(5)]

    ids = nominate(world.engine, batch, START, buckets=["models"])

    assert [world.nomination(new).key for new in ids] == [item.key for item in batch]


def test_an_unknown_event_records_nothing(world: World) -> None:
    with pytest.raises(InputError):
        accept(world.engine, {"what": "ever"}, START, buckets=["models"])
    assert world.nominations() == []


def test_a_database_without_tables_is_unavailable(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'empty.db'}")

    with pytest.raises(Unavailable):
        nominate(engine, [Nomination("models", "k", None, "s3")], START, buckets=["models"])
