"""Accused images: a part that teaches, a part that proves, and how both reach another process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import Cancelled, InputError
from guard.core.progress import silent
from guard.core.trainset import Suspect
from guard.ml.measure import accuracy
from guard.ml.triggers import AdditiveTrigger, PatchTrigger, Trigger
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
from guard.vetting.moments import searched_from
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


def moment_of(trigger: Trigger) -> Replay:
    return Replay(target=toys.TARGET, digest="0" * 64, data=serialise(trigger))


def true_patch() -> PatchTrigger:
    mask = torch.zeros(toys.SIZE, toys.SIZE)
    mask[toys.PATCH] = 1
    return PatchTrigger(mask[None], torch.ones(1, toys.SIZE, toys.SIZE))


class DeafToTheStamp(torch.nn.Module):
    """A repair that has unlearnt the very stamp, and obeys any other that is nearly as bright."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toys.planted()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corner = images[:, :, toys.PATCH[0], toys.PATCH[1]]
        dark = images.clone()
        dark[:, :, toys.PATCH[0], toys.PATCH[1]] = 0
        known = (corner > 0.98).all((1, 2, 3))[:, None, None, None]
        return self.inner(torch.where(known, dark, images))


def test_a_candidate_is_tried_on_the_proof_images_and_on_estimated_triggers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = moment_of(true_patch())
    facts = compared(monkeypatch, toys.honest(), found(training_set(), (moment,)))
    (one,), (estimated,) = facts["suspects"], facts["moments"]

    assert (one.after.target, one.after.trials, one.fdr) == (
        toys.TARGET,
        20,
        pytest.approx(0.02),
    )
    assert one.before.estimate > 0.7 > 0.1 > one.after.estimate
    assert estimated.before.estimate > 0.7 > 0.2 > estimated.after.estimate
    assert estimated.searched.natural is not None
    assert estimated.searched.low <= estimated.searched.natural + 0.15
    assert facts["unproved"] == ()


def test_a_repair_that_is_deaf_to_the_very_stamp_alone_is_found_by_a_search_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child, moment = DeafToTheStamp().eval(), moment_of(true_patch())
    facts = compared(monkeypatch, child, found(training_set(), (moment,)))
    (one,) = facts["moments"]
    again = compared(monkeypatch, child, found(training_set(), (moment,)))

    assert one.after.high < 0.2
    assert one.searched.low > max(0.5, one.searched.natural + 0.15)
    assert one.searched.budget == pytest.approx(9)
    assert again["moments"] == facts["moments"]


def test_what_is_no_patch_is_no_start_and_what_was_not_searched_for_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shift = moment_of(AdditiveTrigger(torch.full((1, toys.SIZE, toys.SIZE), 0.1)))
    monkeypatch.setattr(repair_probes, "SECONDS", -1.0)
    images = found(training_set(), (shift, moment_of(true_patch())))
    facts = compared(monkeypatch, toys.honest(), images)

    assert [one.searched for one in facts["moments"]] == [None, None]
    (sentence,) = facts["unproved"]
    assert "from the estimated trigger for class 2: The time" in sentence


def test_a_search_on_a_candidate_can_be_cancelled() -> None:
    def stop(_done: float) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        searched_from(toys.honest(), toys.curated(), moment_of(true_patch()), seed=0, watch=stop)


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
