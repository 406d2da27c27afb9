"""What every sifter must hold to; runs over the whole shelf."""

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import Cancelled, MethodFailed, OutOfTime
from guard.core.modality import Modality
from guard.ml.cleanset import CleanSet
from guard.sifters import SIFTERS
from guard.sifters._base import Scores
from guard.vetting.parameters import checked
from tests import toys
from tests.sifters import sets

POISONINGS = {"dirty-label", "clean-label", "all-to-all"}


def made(name: str) -> Any:
    sifter = SIFTERS.get(name)
    return sifter(**sifter.quick())


def scores(name: str, seed: int = 1) -> Scores:
    taught = sets.poisoned()
    found: Scores = made(name)(taught.model, taught.train, toys.clean_set(), seed=seed)
    return found


@pytest.fixture(params=SIFTERS.of(Modality.IMAGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_constructible_without_arguments_and_its_parameters_are_plain(name: str) -> None:
    sifter: Any = SIFTERS.get(name)()

    assert json.loads(json.dumps(sifter.parameters())) == sifter.parameters()
    assert sifter.version >= 1
    assert sifter.paper
    assert sifter.poisoning
    assert sifter.poisoning <= POISONINGS


def test_its_quick_run_has_parameters_of_its_own(name: str) -> None:
    sifter = SIFTERS.get(name)

    assert checked(sifter, sifter.quick()) == sifter.quick()


def test_every_image_has_a_finite_score_and_a_clean_score_has_its_label(name: str) -> None:
    found, taught, clean = scores(name), sets.poisoned(), toys.clean_set().together()

    assert found.train.shape == (len(taught.train),)
    assert found.train.dtype == np.float64
    assert np.isfinite(found.train).all()
    assert (found.null is None) == (found.null_labels is None)
    if found.null is not None and found.null_labels is not None:
        assert np.array_equal(found.null_labels, clean.labels.numpy())
        assert found.null.shape == (len(clean),)
    if found.estimated is not None:
        assert found.estimated.shape == found.train.shape
        assert set(found.estimated.tolist()) <= {-1, *range(toys.CLASSES)}


def test_the_same_seed_gives_the_same_scores_to_the_bit(name: str) -> None:
    one, two = scores(name, 3), scores(name, 3)

    assert np.array_equal(one.train, two.train)
    assert (one.null is None) == (two.null is None)
    if one.null is not None and two.null is not None:
        assert np.array_equal(one.null, two.null)


def test_the_callers_model_is_left_as_it_was(name: str) -> None:
    model = sets.poisoned().model
    before = copy.deepcopy(model.state_dict())

    scores(name)

    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_global_random_state_is_left_as_it_was(name: str) -> None:
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    scores(name)
    after = (float(torch.rand(1)), random.random(), float(np.random.rand()))

    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    assert after == (float(torch.rand(1)), random.random(), float(np.random.rand()))


def test_images_are_read_in_batches_and_let_go(name: str) -> None:
    taught = sets.poisoned()
    watched = sets.Watched(taught.train)

    made(name)(taught.model, watched.watching(), toys.clean_set(), seed=1)

    assert set(watched.seen) == set(range(len(taught.train)))
    assert watched.largest <= 128
    assert watched.most_alive <= 3


def test_too_few_clean_images_are_named_where_it_needs_them(name: str) -> None:
    taught, clean = sets.poisoned(), toys.clean_set()
    few = CleanSet(
        clean.name,
        clean.digest,
        clean.classes,
        clean.search.pick(torch.arange(6)),
        clean.calibration.pick(torch.arange(6)),
    )
    if scores(name).null is None:
        assert made(name)(taught.model, taught.train, few, seed=1).null is None
        return

    with pytest.raises(MethodFailed, match="images") as caught:
        made(name)(taught.model, taught.train, few, seed=1)
    assert caught.value.code == "too_few_images"


def test_a_model_that_is_not_finite_is_refused_where_it_is_looked_at(name: str) -> None:
    taught = sets.poisoned()
    broken = copy.deepcopy(taught.model)
    next(broken.parameters()).data.view(-1)[0] = float("nan")
    own = scores(name).train
    failed, found = "", own
    try:
        found = made(name)(broken, taught.train, toys.clean_set(), seed=1).train
    except MethodFailed as error:
        failed = error.code

    # Without an error it trained a network of its own, which the broken model does not touch.
    assert failed == "non_finite" or (not failed and np.array_equal(found, own))


def test_it_can_be_cancelled(name: str) -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    taught = sets.poisoned()
    with pytest.raises(Cancelled):
        made(name)(taught.model, taught.train, toys.clean_set(), seed=1, progress=stop)


def test_it_ends_when_its_time_is_over(name: str) -> None:
    taught = sets.poisoned()
    with pytest.raises(OutOfTime):
        made(name)(taught.model, taught.train, toys.clean_set(), seed=1, seconds=0.0)


def test_its_progress_rises_to_the_end(name: str) -> None:
    seen: list[float] = []
    taught = sets.poisoned()

    made(name)(
        taught.model,
        taught.train,
        toys.clean_set(),
        seed=1,
        progress=lambda done, note="": seen.append(done),
    )

    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_repeats_itself_to_the_bit(name: str) -> None:
    taught = sets.poisoned()
    model = copy.deepcopy(taught.model).cuda()

    one, two = (made(name)(model, taught.train, toys.clean_set(), seed=3) for _ in range(2))

    assert np.array_equal(one.train, two.train)
