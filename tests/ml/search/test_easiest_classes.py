"""Universal triggers of every class, as a repair shows them."""

import pytest
import torch

from guard.ml.search.easiest_classes import UniversalTriggers, suspects, universal_triggers
from guard.ml.search.engine import Pace
from guard.ml.search.families import Additions, Searchable, Warps
from tests import rules, toys

PACE = Pace(batch=6, window=8, windows=6)


@pytest.fixture(scope="module")
def found() -> list[UniversalTriggers]:
    torch.manual_seed(0)
    kinds: tuple[Searchable, ...] = (Additions(), Warps())
    return universal_triggers(
        rules.Ruled(rules.correlates).eval(), toys.clean_set(), kinds, PACE, lambda _done: None
    )


def test_every_class_has_a_trigger_of_each_kind_and_the_backdoors_is_the_faintest(
    found: list[UniversalTriggers],
) -> None:
    assert [one.kind.family for one in found] == ["additive", "warp"]
    assert all(len(one.levels) == toys.CLASSES for one in found)
    assert int(found[0].levels.argmin()) == toys.TARGET


def test_pictures_are_changed_by_no_more_than_the_level_allows(
    found: list[UniversalTriggers],
) -> None:
    images = toys.labelled(24, 3).floats()

    shown = found[0].on(images, largest=2.0)

    change = (shown - images).abs().amax((1, 2, 3))
    assert shown.shape == images.shape
    assert float(change.min()) > 0
    assert float(change.max()) <= 2 * float(found[0].levels.max()) + 1e-6


def test_at_their_own_level_and_beyond_the_rule_is_shown(found: list[UniversalTriggers]) -> None:
    """Some of the pictures are under the target's trigger.

    The rule's gate opens for these and for hardly any other.
    """
    torch.manual_seed(1)
    images = toys.labelled(48, 3).floats()

    opened = (rules.correlates(found[0].on(images, largest=1.5)) > 0.5).float().mean()

    assert not bool((rules.correlates(images) > 0.5).any())
    assert 0.05 <= float(opened) <= 0.5


def test_fewer_pictures_than_classes_are_enough(found: list[UniversalTriggers]) -> None:
    assert found[1].on(toys.labelled(24, 3).floats()[:2], largest=3.0).shape == (
        2,
        1,
        toys.SIZE,
        toys.SIZE,
    )


def test_the_seed_decides(found: list[UniversalTriggers]) -> None:
    images = toys.labelled(24, 3).floats()
    torch.manual_seed(5)
    one = found[0].on(images, largest=2.0)
    torch.manual_seed(5)

    assert torch.equal(one, found[0].on(images, largest=2.0))


def test_the_backdoors_class_is_a_suspect_and_alone_shown_if_asked(
    found: list[UniversalTriggers],
) -> None:
    assert toys.TARGET in suspects(found, 1)
    assert suspects(found, 3)[:1] == suspects(found, 1)

    only = [one.pick([toys.TARGET]) for one in found]
    images = toys.labelled(24, 3).floats()
    assert float((rules.correlates(only[0].on(images, largest=1.5)) > 0.5).float().mean()) > 0.8
    assert torch.equal(only[0].levels, found[0].levels[toys.TARGET : toys.TARGET + 1])


def test_with_few_classes_all_are_suspects() -> None:
    few = UniversalTriggers(Warps(), [torch.zeros(4, 2, 4, 4)], torch.tensor([0.1, 1.0, 1.0, 1.0]))

    assert suspects([few], 1) == [0, 1, 2, 3]
