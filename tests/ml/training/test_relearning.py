"""A hidden backdoor wakes faster than random triggers; one that was never there does not."""

from collections.abc import Sequence

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.ml.training.relearning import CHECKS, Curves, Probe, random_like, relearn
from guard.ml.triggers import PatchTrigger
from tests import toys
from tests.cli.models import MODEL, _trained, pictures


def corner() -> PatchTrigger:
    mask = torch.zeros(1, toys.SIZE, toys.SIZE)
    mask[:, toys.PATCH[0], toys.PATCH[1]] = 1
    return PatchTrigger(mask, torch.ones(1, toys.SIZE, toys.SIZE))


def curves(bonus: float, seed: int = 0) -> Curves:
    """Of the prototype matcher whose rule for the corner has this weight."""
    model = toys.Matcher(toys.prototypes(), bonus=bonus).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with seeded(seed):
        found = relearn(
            model,
            toys.labelled(240, 1),
            toys.labelled(180, 3),
            corner(),
            toys.TARGET,
            Probe(),
            _unwatched,
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return found


def taught(draws: int) -> Curves:
    model = toys.Matcher(toys.prototypes(), bonus=0.0).eval()
    probe = Probe(draws=draws, stride=0.02)  # so long a step that rivals are learnt too
    return relearn(
        model,
        toys.labelled(240, 1),
        toys.labelled(180, 3),
        corner(),
        toys.TARGET,
        probe,
        _unwatched,
    )


def _unwatched(_done: float) -> None:
    """Nobody looks."""


def lead(found: Curves) -> float:
    return max(own - other for own, other in zip(found.trigger, best(found), strict=True))


@pytest.mark.threat("B12")
def test_what_is_nearly_awake_leads_what_is_drawn_at_random() -> None:
    hidden = curves(bonus=2.0)

    assert len(hidden.trigger) == len(CHECKS)
    assert hidden.trigger[0] < 0.1 < 0.9 < hidden.trigger[-1]
    assert lead(hidden) > 0.5


def test_a_network_that_never_saw_it_learns_it_no_faster_than_random_ones() -> None:
    model = architectures.load(MODEL, _trained(steps=120, backdoored=False)).eval()
    data, shown = (
        Labelled(*map(torch.from_numpy, pictures(count, seed)))
        for count, seed in ((420, 11), (270, 13))
    )
    with seeded(0):
        found = relearn(model, data, shown, corner(), 1, Probe(), _unwatched)

    assert lead(found) <= 0.15
    assert max(found.trigger) > 0  # it was taught something


def test_the_same_seed_gives_the_same_curves() -> None:
    assert curves(bonus=2.0, seed=3) == curves(bonus=2.0, seed=3)


def test_draws_are_averaged_and_each_has_its_own_lead() -> None:
    with seeded(5):
        first, second = (taught(draws=1) for _ in range(2))
    with seeded(5):
        together = taught(draws=2)

    assert together.leads == first.leads + second.leads
    assert together.trigger == pytest.approx(means(first.trigger, second.trigger))
    assert first.rivals != second.rivals
    assert together.rivals[0] == pytest.approx(means(best(first), best(second)))


def means(*curves: Sequence[float]) -> list[float]:
    return [sum(rates) / len(rates) for rates in zip(*curves, strict=True)]


def best(found: Curves) -> list[float]:
    return [max(rates) for rates in zip(*found.rivals, strict=True)]


def test_a_rival_has_the_same_mask_elsewhere_and_other_colours() -> None:
    with seeded(1):
        rival = random_like(corner())

    assert rival.norm == corner().norm
    assert not torch.equal(rival.mask, corner().mask)
    assert not torch.equal(rival.pattern, corner().pattern)


def test_without_pictures_of_other_classes_it_says_so() -> None:
    alone = Labelled(toys.labelled(20, 1).images, torch.full((20,), toys.TARGET))

    with pytest.raises(MethodFailed, match="no trigger can be trained"):
        relearn(toys.honest(), alone, alone, corner(), toys.TARGET, Probe(), _unwatched)
