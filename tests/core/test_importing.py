"""Imports without looks for garbage. What is frozen here stays so, like what was collected."""

import gc

import pytest

from guard.core.importing import uncollected


def test_nothing_is_collected_meanwhile_and_what_is_there_never() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        kept: list[list[int]] = [[]]

    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    assert not any(one is kept for one in gc.get_objects())


def test_an_import_that_fails_leaves_collection_as_it_was() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError

    assert gc.isenabled()
