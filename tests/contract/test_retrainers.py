"""What every retrainer must hold to; runs over the whole shelf."""

import json
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.digests import sha256
from guard.core.errors import Cancelled, MethodFailed
from guard.core.modality import Modality
from guard.core.progress import Progress, silent
from guard.ml.measure import accuracy
from guard.ml.training.checkpoints import Checkpoint, FolderCheckpoint
from guard.retrainers import RETRAINERS
from guard.retrainers._base import Retrained
from guard.trainsets import Sifted, TrainingSet
from guard.vetting.parameters import checked
from tests import toys
from tests.house.sources import ROOT
from tests.retrainers import sets

_whole: dict[str, Retrained] = {}


def run(
    name: str,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
    seed: int = 3,
    train: TrainingSet | None = None,
    sift: Sifted | None = None,
    **changes: Any,
) -> Retrained:
    retrainer = RETRAINERS.get(name)
    return retrainer(**retrainer.quick())(
        changes.get("manifest", toys.manifest()),
        train or sets.poisoned(),
        changes.get("clean", toys.clean_set()),
        sift or sets.sift(),
        checkpoint=checkpoint or sets.Memory(),
        seed=seed,
        progress=progress,
        device="cpu",
    )


def whole(name: str) -> Retrained:
    """The result of a run that nobody interrupted."""
    if name not in _whole:
        _whole[name] = run(name)
    return _whole[name]


def stopping_at(share: float) -> Progress:
    def stop(done: float, note: str = "") -> None:
        if done >= share:
            raise Cancelled("enough")

    return stop


@pytest.fixture(params=RETRAINERS.of(Modality.IMAGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_constructible_without_arguments_and_its_parameters_are_plain(name: str) -> None:
    retrainer: Any = RETRAINERS.get(name)()

    assert json.loads(json.dumps(retrainer.parameters())) == retrainer.parameters()
    assert retrainer.version >= 1
    assert retrainer.paper


def test_its_quick_run_has_parameters_of_its_own(name: str) -> None:
    retrainer = RETRAINERS.get(name)

    assert checked(retrainer, retrainer.quick()) == retrainer.quick()


def test_the_new_network_knows_the_classes_and_is_ready_to_be_measured(name: str) -> None:
    made = whole(name)

    assert accuracy(made.model, toys.labelled(180, 3), toys.CLASSES).overall >= 0.8
    assert not any(module.training for module in made.model.modules())
    assert all(weight.requires_grad for weight in made.model.parameters())
    assert all(np.isfinite(value) for value in made.numbers.values())


@dataclass
class Second:
    """Another run with the seed of `whole`, and what was seen of it."""

    made: Retrained
    seen: set[int]  # places of the images that were read
    random: list[tuple[Any, ...]]  # the global random state before and after


@cache
def second(name: str) -> Second:
    train, seen = sets.watched(sets.poisoned())
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    made = run(name, train=train)
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    return Second(made, seen, [before, after])


def test_the_same_seed_gives_the_same_network_to_the_bit(name: str) -> None:
    assert sets.same_weights(whole(name).model, second(name).made.model)
    assert not sets.same_weights(whole(name).model, run(name, seed=4).model)


def test_the_global_random_state_is_left_as_it_was(name: str) -> None:
    before, after = second(name).random

    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert str(before[2]) == str(after[2])
    assert (before[2][1] == after[2][1]).all()


@pytest.mark.parametrize("share", [0.01, 0.4, 0.77, 0.93, 1.0])
def test_a_run_that_was_cancelled_goes_on_to_the_same_bits(name: str, share: float) -> None:
    checkpoint = sets.Memory()
    with pytest.raises(Cancelled):
        run(name, checkpoint=checkpoint, progress=stopping_at(share))
    assert checkpoint.state is not None
    torch.manual_seed(99)  # another process starts in another state

    again = run(name, checkpoint=checkpoint)

    assert sets.same_weights(again.model, whole(name).model)
    assert again.numbers == whole(name).numbers


def test_a_process_that_was_killed_is_continued_to_the_same_bits(name: str, tmp_path: Path) -> None:
    threads = str(torch.get_num_threads())
    script = [sys.executable, "-m", "tests.retrainers.killed", name, str(tmp_path), "0.6", threads]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoint = FolderCheckpoint(tmp_path, sha256(name.encode()))
    found = checkpoint.load()
    assert found is not None
    first: list[float] = []

    again = run(name, checkpoint=checkpoint, progress=lambda done, note="": first.append(done))

    assert min(first) > 0.3, "it started again"
    assert sets.same_weights(again.model, whole(name).model)


def test_it_can_be_cancelled_again_and_again(name: str) -> None:
    checkpoint = sets.Memory()
    for share in (0.2, 0.5, 0.8):
        with pytest.raises(Cancelled):
            run(name, checkpoint=checkpoint, progress=stopping_at(share))

    assert sets.same_weights(run(name, checkpoint=checkpoint).model, whole(name).model)


def test_images_that_are_kept_for_the_proof_are_not_even_read(name: str) -> None:
    seen = second(name).seen

    assert seen
    assert not seen & set(sets.sift().proof.tolist())


def test_a_set_of_another_size_is_refused(name: str) -> None:
    with pytest.raises(MethodFailed, match="set holds 1x12x12") as refused:
        run(name, manifest=toys.manifest(input_size=(1, 16, 16)))

    assert refused.value.code == "wrong_shape"


def test_a_set_of_other_classes_is_refused(name: str) -> None:
    train = sets.poisoned()
    fewer = replace(train, facts=replace(train.facts, class_names=sets.NAMES[:4]))
    with pytest.raises(MethodFailed, match="has 4") as refused:
        run(name, train=fewer)

    assert refused.value.code == "wrong_classes"


def test_what_was_found_in_another_set_is_refused(name: str) -> None:
    with pytest.raises(MethodFailed, match="sift this set") as refused:
        run(name, sift=replace(sets.sift(), suspects=np.array([sets.IMAGES])))

    assert refused.value.code == "wrong_places"


def test_a_class_of_which_nothing_is_left_is_named(name: str) -> None:
    gone = np.flatnonzero(sets.poisoned().labels == 4)
    found = sets.sift()
    found = replace(found, proof=gone, trusted=np.setdiff1d(found.trusted, gone))

    with pytest.raises(MethodFailed, match="class 4 has 0") as refused:
        run(name, sift=found)

    assert refused.value.code == "too_few_images"


def test_a_network_that_runs_away_is_a_failure_and_not_a_result(name: str) -> None:
    retrainer = RETRAINERS.get(name)
    if "rate" not in retrainer().parameters():
        pytest.skip("it has no rate that could be too high")
    with pytest.raises(MethodFailed) as failed:
        retrainer(**{**retrainer.quick(), "rate": 1e30})(
            toys.manifest(),
            sets.poisoned(),
            toys.clean_set(),
            sets.sift(),
            checkpoint=sets.Memory(),
            seed=3,
            device="cpu",
        )

    assert failed.value.code == "non_finite"


def test_nothing_was_found_is_no_obstacle(name: str) -> None:
    none = np.empty(0, np.int64)
    found = replace(sets.sift(), suspects=none, proof=none, relabelled=none)

    assert run(name, sift=found).model is not None
