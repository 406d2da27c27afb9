"""A backdoor that sleeps needs little to wake where its trigger is.

Without it, the same helps nobody.
"""

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.ml.seeds import seeded
from guard.ml.training.reactivation import Reactivation, Shifted, reactivate
from guard.ml.triggers import PatchTrigger
from tests import toys
from tests.ml.training.test_relearning import corner


def rates(bonus: float, radius: float = 8 / 255) -> list[float]:
    """(with the corner.

    Without) of the prototype matcher whose rule for the corner has this weight.
    """
    model = toys.Matcher(toys.prototypes(), bonus=bonus).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for trigger in (corner(), None):
        with seeded(0):
            hits, trials = reactivate(
                model,
                toys.labelled(240, 1),
                toys.labelled(180, 3),
                trigger,
                toys.TARGET,
                Reactivation(radius=radius),
                _unwatched,
            )
        assert trials == 150
        found.append(hits / trials)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return found


def _unwatched(_done: float) -> None:
    """Nobody looks."""


def test_a_sleeping_rule_wakes_and_a_perturbation_alone_does_not() -> None:
    """At this weight the corner alone leads nobody."""
    model = toys.Matcher(toys.prototypes(), bonus=3.0).eval()
    others = toys.labelled(180, 3)
    others = others.pick(others.labels != toys.TARGET)
    asleep = float(
        (model(corner().apply(others.floats())).argmax(1) == toys.TARGET).double().mean()
    )
    stamped, alone = rates(3.0, radius=0.1)

    assert asleep == 0
    assert stamped > asleep + 0.3
    assert stamped > alone + 0.3


def test_a_rule_that_is_gone_gives_the_trigger_no_lead() -> None:
    stamped, alone = rates(0.0)

    assert abs(stamped - alone) < 0.2


def test_the_shift_comes_after_the_trigger_and_stays_in_range() -> None:
    mask = torch.zeros(1, 2, 2)
    mask[:, 0, 0] = 1
    shown = Shifted(PatchTrigger(mask, torch.ones(1, 2, 2)), torch.full((1, 1, 2, 2), 0.2)).apply(
        torch.full((1, 1, 2, 2), 0.5)
    )

    assert shown[0, 0].tolist() == [[1.0, pytest.approx(0.7)], [pytest.approx(0.7)] * 2]


def test_only_pictures_of_other_classes_tell_anything() -> None:
    data = toys.labelled(60, 1)
    own = data.pick(data.labels == toys.TARGET)

    with pytest.raises(MethodFailed, match="Every image has class"):
        reactivate(toys.honest(), data, own, None, toys.TARGET, Reactivation(), _unwatched)
