"""Rows come back from the disk in any order, and a damaged spool is noticed."""

import json
from pathlib import Path

import numpy as np
import pytest

from guard.core.errors import TrainingSetError
from guard.trainsets import open_spool, read
from guard.trainsets._spool import FACTS, FILES, IMAGES
from tests.trainsets.making import images_of, labels_of, npz

PICKED = images_of(50)


@pytest.fixture
def spool(tmp_path: Path, into: Path) -> Path:
    read(npz(tmp_path / "set.npz", PICKED, labels_of(50)), into)
    return into


@pytest.mark.parametrize(
    "places",
    [[], [7], list(range(50)), [3, 4, 5, 20, 21], [49, 0, 17, 18, 16], [5, 5, 4, 5], [-0]],
)
def test_rows_come_in_the_order_of_the_places(spool: Path, places: list[int]) -> None:
    found = open_spool(spool).rows(np.array(places, np.int64))

    assert np.array_equal(found, PICKED[places])
    assert found.shape == (len(places), 1, 6, 5)


@pytest.mark.parametrize("place", [-1, 50])
def test_places_outside_the_set_are_refused(spool: Path, place: int) -> None:
    train = open_spool(spool)

    with pytest.raises(IndexError):
        train.rows(np.array([place]))
    with pytest.raises(IndexError):
        train.name_of(place)


def test_what_was_read_can_be_opened_again(tmp_path: Path, into: Path) -> None:
    first = read(npz(tmp_path / "set.npz", PICKED, labels_of(50)), into)
    again = open_spool(into)

    assert again.facts == first.facts
    assert np.array_equal(again.labels, first.labels)


@pytest.mark.parametrize("name", [name for name in FILES if name != "names.txt"])
def test_a_missing_or_shortened_file_is_noticed(spool: Path, name: str) -> None:
    (spool / name).write_bytes((spool / name).read_bytes()[:-8])
    with pytest.raises(TrainingSetError, match="is damaged"):
        open_spool(spool)
    (spool / name).unlink()
    with pytest.raises(TrainingSetError, match="is damaged"):
        open_spool(spool)


def test_a_spool_of_another_layout_is_not_read(spool: Path) -> None:
    plain = json.loads((spool / FACTS).read_text())
    (spool / FACTS).write_text(json.dumps({**plain, "layout": 99}))

    with pytest.raises(TrainingSetError, match="is damaged"):
        open_spool(spool)


def test_rows_that_vanish_later_are_noticed(spool: Path) -> None:
    train = open_spool(spool)
    (spool / IMAGES).write_bytes(b"")

    with pytest.raises(TrainingSetError, match="is damaged"):
        train.rows(np.arange(3))


def test_a_second_reading_replaces_the_first(spool: Path, tmp_path: Path) -> None:
    read(npz(tmp_path / "set.npz", PICKED[:30], labels_of(30)), spool)

    assert len(open_spool(spool)) == 30
