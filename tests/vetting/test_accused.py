"""Accused images: a part that teaches, a part that proves, and how both reach another process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import InputError
from guard.core.progress import silent
from guard.core.trainset import Suspect
from guard.ml.measure import accuracy
from guard.ml.triggers import PatchTrigger
from guard.ml.triggers.files import serialise
from guard.policy import TrainingSetRule
from guard.trainsets import TrainingSet, from_arrays
from guard.vetting import accused as module
from guard.vetting import repair_probes
from guard.vetting.accused import (
    AccusedImages,
    accused,
    by_label,
    gathered,
    packed,
    proof_images,
    unpacked,
)
from guard.vetting.parent_comparison import compared_with_parent
from guard.vetting.repair_probes import Proof as Probed
from guard.vetting.repair_probes import Replay
from tests import toys


def training_set(count: int = 120) -> TrainingSet:
    """Prototypes of all classes, of which the first sixty others carry the trigger."""
    data = toys.labelled(count, 21)
    others = torch.nonzero(data.labels != toys.TARGET).flatten()[:60]
    data.images[others] = toys.stamped(data.images[others])
    labels = data.labels.clone()
    labels[others] = toys.TARGET
    names = tuple(f"class {label}" for label in range(toys.CLASSES))
    return from_arrays(data.images.numpy(), labels.numpy(), names)


def suspect(index: int, **more: object) -> Suspect:
    facts = {"label": toys.TARGET, "estimated": index % toys.CLASSES, "fdr": 0.02, "source": ""}
    return Suspect(index=index, **{**facts, **more})  # type: ignore[arg-type]


def poisoned(train: TrainingSet) -> list[Suspect]:
    """The true poison, every third image of it for the proof."""
    places = [
        place for place, label in enumerate(train.labels.tolist()) if label != place % toys.CLASSES
    ]
    return [suspect(place, proof=turn % 3 == 0) for turn, place in enumerate(places)]


def found(train: TrainingSet, moments: Sequence[Replay] = ()) -> AccusedImages:
    images = gathered(TrainingSetRule(), train, poisoned(train), range(100, 120), moments)
    assert images is not None
    return images


def test_no_image_of_the_proof_part_teaches_and_no_suspect_is_trusted() -> None:
    train = training_set()
    suspects = poisoned(train)
    images = accused(train, suspects, range(120))
    taught = [one.index for one in suspects if not one.proof]

    assert np.array_equal(images.suspects.images.numpy(), train.rows(np.asarray(taught)))
    assert images.suspects.labels.tolist() == [toys.TARGET] * 40
    assert images.relabelled.tolist() == [place % toys.CLASSES for place in taught]
    assert len(images.trusted) == 120 - len(suspects)


def test_an_unsure_reference_gives_no_class() -> None:
    images = accused(training_set(), [suspect(0, estimated=None)], ())

    assert images.relabelled.tolist() == [-1]
    assert len(images.trusted) == 0


def test_only_dirty_labels_of_the_proof_part_prove_a_repair() -> None:
    proof = proof_images(
        training_set(),
        [
            suspect(0, proof=True),
            suspect(1),
            suspect(3, proof=True, estimated=None),
            suspect(2, proof=True, estimated=toys.TARGET),
        ],
    )

    assert (len(proof.images), proof.fdr) == (1, (0.02,))


def test_of_many_the_surest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    suspects = [suspect(place, fdr=0.01 * (9 - place)) for place in range(9)]
    images = accused(training_set(), suspects, range(20, 60))

    assert images.relabelled.tolist() == [0, 1, 2]  # of the places 6, 7 and 8
    assert len(images.trusted) == 3


@pytest.mark.parametrize("rule", [TrainingSetRule(min_images=61), TrainingSetRule(max_fdr=0.01)])
def test_where_too_few_suspects_count_there_are_none(rule: TrainingSetRule) -> None:
    train = training_set()

    assert gathered(rule, train, poisoned(train), ()) is None


def test_each_label_has_a_rate_and_rare_ones_share_one() -> None:
    assert by_label([3] * 12 + [1] * 6 + [2] * 5) == (
        {3: list(range(12)), "all-to-all": list(range(12, 23))},
        0,
    )
    assert by_label([3] * 12 + [1] * 6) == ({3: list(range(12))}, 6)
    assert by_label([]) == ({}, 0)


def test_the_images_reach_another_process_as_they_were() -> None:
    moment = Replay(target=2, digest="0" * 64, data=b"\x00trigger", budget=9.0)
    before = found(training_set(), (moment,))
    after = unpacked(packed(before))

    assert after.moments == (moment,)
    assert after.proof.fdr == before.proof.fdr
    assert torch.equal(after.taught.relabelled, before.taught.relabelled)
    for one, two in (
        (after.taught.suspects, before.taught.suspects),
        (after.taught.trusted, before.taught.trusted),
        (after.proof.images, before.proof.images),
    ):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize("data", [b"", b"no archive", packed(found(training_set()))[:-200]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="sift the training set again"):
        unpacked(data)


def compared(
    monkeypatch: pytest.MonkeyPatch, child: torch.nn.Module, images: AccusedImages
) -> dict[str, Any]:
    monkeypatch.setattr(repair_probes, "prove", lambda *_args, **_more: Probed())
    curated, model = toys.curated(), toys.network()
    return compared_with_parent(
        model,
        child,
        curated,
        (),
        acc_before=accuracy(model, curated.holdout, toys.CLASSES),
        seed=0,
        progress=silent,
        accused=images,
    )


def test_a_candidate_is_tried_on_the_proof_images_and_on_estimated_triggers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mask = torch.zeros(toys.SIZE, toys.SIZE)
    mask[toys.PATCH] = 1
    trigger = PatchTrigger(mask[None], torch.ones(1, toys.SIZE, toys.SIZE))
    moment = Replay(target=toys.TARGET, digest="0" * 64, data=serialise(trigger))
    facts = compared(monkeypatch, toys.honest(), found(training_set(), (moment,)))
    (one,), (estimated,) = facts["suspects"], facts["moments"]

    assert (one.after.target, one.after.trials, one.fdr) == (
        toys.TARGET,
        20,
        pytest.approx(0.02),
    )
    assert one.before.estimate > 0.7 > 0.1 > one.after.estimate
    assert estimated.before.estimate > 0.7 > 0.2 > estimated.after.estimate
    assert facts["unproved"] == ()


@pytest.mark.parametrize(("dirty", "said"), [(0, "None of the accused"), (5, "5 accused")])
def test_proof_images_that_prove_nothing_are_reported(
    dirty: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = training_set()
    suspects = [suspect(6 * turn, proof=turn < dirty, estimated=0) for turn in range(15)]
    images = gathered(TrainingSetRule(), train, suspects, ())
    assert images is not None
    facts = compared(monkeypatch, toys.honest(), images)

    assert facts["suspects"] == ()
    assert said in facts["unproved"][0]
