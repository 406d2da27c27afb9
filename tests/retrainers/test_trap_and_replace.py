"""Trap and Replace leaves the stem alone in its second stage, and is honest about its control."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.networks import fresh as fresh_network
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.split import Split, psnr, split
from guard.ml.seeds import seeded
from guard.ml.training.augment import cutmix
from guard.ml.training.resumable import Resumable, Stage
from guard.retrainers import _shared, trap_and_replace
from guard.retrainers._base import Retrained
from guard.retrainers.trap_and_replace import TrapAndReplace
from tests import toys
from tests.retrainers import sets

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"epochs": 2, "replace_epochs": 2}


def trained(clean: CleanSet | None = None, **changes: Any) -> Retrained:
    method = TrapAndReplace(**{**TrapAndReplace.quick(), **changes})
    return method(
        toys.manifest(),
        sets.poisoned(),
        clean or toys.clean_set(),
        sets.sift(),
        checkpoint=sets.Memory(),
        seed=1,
        device="cpu",
    )


def cut() -> tuple[ImageModel, Split]:
    with seeded(0):
        model = fresh_network.fresh(toys.manifest(), CPU)
    return model, split(model, toys.clean_set().search.pick(torch.arange(4)).floats(), method="T")


def replaced(method: TrapAndReplace, model: ImageModel, where: Split) -> Stage:
    """Its stage for the head, on the poisoned set and a perfect sift."""
    found = sets.sift()
    return method._replace("head", model, where, toys.clean_set(), sets.poisoned(), found.suspects)


def stem_digest(model: ImageModel, where: Split) -> str:
    """Of all weights and statistics before the cut."""
    sha = hashlib.sha256()
    behind = {f"inner.{name}" for name in where.head_modules}
    for name, tensor in sorted(model.state_dict().items()):
        if name not in where.head_weights and name.rpartition(".")[0] not in behind:
            sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def test_the_replace_stage_gives_the_stem_no_gradient_and_the_head_one() -> None:
    model, where = cut()
    stage = replaced(TrapAndReplace(), model, where)

    stage.loss(np.arange(16)).backward()

    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == (name in where.head_weights), name


def test_the_replace_stage_changes_neither_weights_nor_statistics_of_the_stem() -> None:
    model, where = cut()
    before = stem_digest(model, where)
    head = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name in where.head_weights
    }
    method = TrapAndReplace(**TrapAndReplace.quick())
    with seeded(1):
        stage = replaced(method, model, where)
        Resumable(sets.Memory(), silent).fit(stage, 0, 1)

    assert stem_digest(model, where) == before
    assert any("bn" in name for name in head)
    assert all(not torch.equal(model.state_dict()[name], old) for name, old in head.items())


def test_batches_are_mixed_as_often_as_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, where = cut()
    mixed = []

    def noted(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        mixed.append(len(images))
        return cutmix(images)

    monkeypatch.setattr(trap_and_replace, "cutmix", noted)
    for mix in (0.0, 1.0):
        stage = replaced(TrapAndReplace(mix=mix), model, where)
        stage.loss(np.arange(16))

    assert mixed == [16]


@pytest.mark.parametrize(("counter", "mix"), [(0.5, 0.0), (0.5, 1.0), (0.0, 0.0)])
def test_the_replace_stage_reads_suspects_alone_and_none_if_they_do_not_count(
    counter: float, mix: float
) -> None:
    model, where = cut()
    train, seen = sets.watched(sets.poisoned())
    found = sets.sift()
    stage = TrapAndReplace(counter=counter, mix=mix)._replace(
        "head", model, where, toys.clean_set(), train, found.suspects
    )

    stage.loss(np.arange(16))

    assert seen <= set(found.suspects.tolist())
    assert bool(seen) == (counter > 0)


def test_the_new_head_turns_from_the_suspects() -> None:
    left = []
    for counter in (0.0, 0.5):
        model, where = cut()
        method = TrapAndReplace(**{**TrapAndReplace.quick(), "counter": counter})
        with seeded(1):
            Resumable(sets.Memory(), silent).fit(replaced(method, model, where), 0, 1)
        model.eval()
        train, places = sets.poisoned(), sets.sift().suspects
        images, labels = _shared.batch_of(train, places, CPU)
        with torch.no_grad():
            left.append(float(model(images).softmax(1).gather(1, labels[:, None]).mean()))

    assert left[1] < 0.8 * left[0]


def test_the_head_starts_anew_and_the_stem_does_not() -> None:
    model, where = cut()
    with seeded(5):
        fresh = fresh_network.fresh(toys.manifest(), CPU)
    before = stem_digest(model, where)
    model.get_submodule("inner.layer2.0.bn1").running_mean.fill_(7)

    where.renew(model, fresh)

    assert stem_digest(model, where) == before
    own, other = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in where.head_weights)
    assert float(own["inner.layer2.0.bn1.running_mean"].abs().max()) == 0


def test_the_bait_is_ten_times_the_error_plus_the_variation() -> None:
    made, images = torch.rand(2, 1, 5, 5), torch.rand(2, 1, 5, 5)
    down = (made[:, :, 1:] - made[:, :, :-1]).square().sum()
    across = (made[..., 1:] - made[..., :-1]).square().sum()

    found = TrapAndReplace().bait(made, images, 10)

    wanted = 10 * (made - images).square().mean() + (down + across) / 50
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert TrapAndReplace().bait(made, images, 1000) > found


def test_it_reports_how_well_the_bait_held_and_what_the_control_can() -> None:
    made = trained(**SHORT)
    numbers = made.numbers

    assert made.control is not None
    assert numbers["psnr"] == pytest.approx(psnr(numbers["mse"]))
    assert numbers["bait_held"] == float(numbers["mse"] <= trap_and_replace.FAILED_MSE)
    calibration = toys.clean_set().calibration
    for network, name in ((made.model, "accuracy"), (made.control, "control_accuracy")):
        assert accuracy(network, calibration, toys.CLASSES).overall == numbers[name]
    assert 0.1 <= numbers["head_share"] < 1


def test_the_control_is_trained_without_the_bait() -> None:
    with_bait, without = trained(**SHORT), trained(**SHORT, reconstruction=0.0, variation=0.0)

    assert with_bait.control is not None
    assert without.control is not None
    assert sets.same_weights(with_bait.control, without.control)
    assert not sets.same_weights(with_bait.model, without.model)


def test_the_bait_makes_the_stem_keep_the_image() -> None:
    long: dict[str, Any] = {"epochs": 12, "replace_epochs": 1}
    baited, blind = trained(**long), trained(**long, reconstruction=0.0)

    assert baited.numbers["mse"] < blind.numbers["mse"] / 2


def test_a_clean_set_that_is_smaller_than_a_batch_is_enough() -> None:
    small = toys.clean_set(search=30, calibration=12)

    assert trained(small, **{**SHORT, "batch": 64}).model is not None


def test_a_class_without_clean_images_is_named() -> None:
    clean = toys.clean_set()
    few = replace(clean, search=clean.search.pick(clean.search.labels != 3))
    with pytest.raises(MethodFailed, match="class 3 has 0") as refused:
        trained(few)

    assert refused.value.code == "too_few_images"


def test_the_cut_can_be_named() -> None:
    early = trained(cut="layer1", **SHORT).numbers["head_share"]

    assert early > trained(**SHORT).numbers["head_share"]


def test_a_cut_that_is_none_is_refused() -> None:
    with pytest.raises(MethodFailed, match=r"before 'layer1.0.conv2'") as refused:
        trained(cut="layer1.0.conv2")

    assert refused.value.code == "no_cut"


def test_the_classifier_loses_inputs_while_it_is_trained_only() -> None:
    model, _ = cut()
    images = toys.clean_set().search.pick(torch.arange(8)).floats()
    model.eval()
    whole = model(images)
    with trap_and_replace._thinned(model, toys.clean_set(), 0.5):
        assert torch.equal(model(images), whole)
        model.inner.linear.training = True
        assert not torch.equal(model(images), whole)
    assert torch.equal(model(images), whole)


def test_a_network_without_a_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trap_and_replace, "layer_of", lambda model, clean: None)
    with pytest.raises(MethodFailed) as refused:
        trained(epochs=1)

    assert refused.value.code == "no_head"
