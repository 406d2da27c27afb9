"""What honest networks show is the clean set's own, computed once, and carried on."""

import json
from collections import OrderedDict

import pytest
import torch

from guard.ml.search import natural_views as natural
from guard.ml.search import reference_model
from guard.ml.search.battery import drawing_from
from guard.ml.search.natural_views import Views, natural_views, remember, remembered
from tests import ranking


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natural, "_known", OrderedDict())


def seen(rounds: int = 4, references: int = 1) -> Views | None:
    return natural_views(ranking.clean_set(96, 40), references, rounds, 1, lambda _done: None)


def test_they_are_the_same_for_a_clean_set_whatever_the_random_state() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first = seen()
    assert torch.equal(torch.rand(4), wanted)
    natural._known.clear()
    torch.manual_seed(8)

    assert first is not None
    assert first.alignment is not None
    assert len(first.alignment) == len(first.attraction) == ranking.CLASSES
    assert seen() == first


def test_another_secret_draws_another_battery() -> None:
    first = seen()
    with drawing_from(lambda: b"another"):
        other = seen()

    assert first is not None
    assert other is not None
    assert other.alignment == first.alignment
    assert other.attraction != first.attraction


def test_they_are_known_once_computed_and_only_the_last_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    monkeypatch.setattr(natural, "_measured", lambda *given: made.append(given))
    for rounds in (1, 1, 2, 3, 4, 5):
        assert seen(rounds) is None

    assert len(made) == 5
    assert len(remembered()) == natural.KEPT
    assert seen(references=0) is None
    assert len(made) == 5


def test_a_task_that_cannot_be_learnt_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_model, "trained", lambda *_: None)

    assert seen() is None


def test_another_process_takes_them_over_and_ignores_what_has_another_form() -> None:
    natural._known["a"] = Views((0.5, 1.0), (1.5, 2.0))
    natural._known["b"] = Views(None, (1.5, 2.0))
    natural._known["c"] = None
    carried = json.loads(json.dumps(remembered()))
    natural._known.clear()
    remember(carried)

    assert natural._known == {
        "a": Views((0.5, 1.0), (1.5, 2.0)),
        "b": Views(None, (1.5, 2.0)),
        "c": None,
    }
    natural._known.clear()
    for broken in (3, [1.0], {}, {"attraction": ["x"]}, {"attraction": [float("nan")]}):
        remember({"d": broken})

        assert natural._known == {}, broken
