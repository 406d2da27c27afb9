"""The trigger that suspects carry is measured on images that it was not read from."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from guard.core.errors import Cancelled, IntegrityMismatch, OutOfTime
from guard.core.sift import SiftVerdict
from guard.core.trainset import Suspect
from guard.ml.measure import asr
from guard.ml.sifting.carried import Carried
from guard.ml.triggers import AdditiveTrigger, Trigger
from guard.ml.triggers.files import deserialise
from guard.vetting import carried_rates, moments
from guard.vetting.carried_rates import rates, sentence
from guard.vetting.sift import Sift, sift
from tests import toys
from tests.sifters import sets

METHODS: dict[str, dict[str, int]] = {
    "clean_distance": {},
    "label_gap": {"folds": 2, "seen": 3600},
}


@pytest.fixture(scope="module")
def found() -> Sift:
    taught = sets.poisoned()
    return sift(taught.model, taught.train, toys.curated(), METHODS, seed=0)


def test_the_rate_is_near_the_true_one_and_an_honest_network_shows_none(found: Sift) -> None:
    taught = sets.poisoned()

    (one,) = rates(taught.model, taught.train, found.report, toys.curated())
    (other,) = rates(sets.honest().model, taught.train, found.report, toys.curated())

    assert abs(one.carried.estimate - toys.success(taught.model)) < 0.1
    assert other.carried.estimate < 0.3
    assert one.stronger.estimate == one.carried.estimate  # a patch stays as it is


def test_the_sift_says_it_in_a_remark(found: Sift) -> None:
    taught = sets.poisoned()
    (one,) = rates(taught.model, taught.train, found.report, toys.curated())

    assert sentence(one, taught.train.facts.class_names) in found.report.remarks


def test_without_suspects_there_is_no_rate(found: Sift) -> None:
    nobody = replace(found.report, suspects=())

    assert rates(sets.poisoned().model, sets.poisoned().train, nobody, toys.curated()) == ()


def test_a_reading_that_crashes_costs_a_remark_and_not_the_verdict(
    found: Sift, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("sizes differ")

    taught = sets.poisoned()
    monkeypatch.setattr(carried_rates, "carried_by", crash)

    again = sift(taught.model, taught.train, toys.curated(), METHODS, seed=0)

    assert again.report.verdict is SiftVerdict.POISONED
    assert again.report.suspects == found.report.suspects
    assert again.report.remarks[-1] == f"{carried_rates.UNMEASURED}: RuntimeError: sizes differ"


def test_a_set_that_changes_meanwhile_is_no_remark(found: Sift) -> None:
    def rows(_places: Any) -> Any:
        raise IntegrityMismatch("The set is another now.")

    taught = sets.poisoned()
    with pytest.raises(IntegrityMismatch):
        carried_rates.remarks(
            taught.model, replace(taught.train, rows=rows), found.report, toys.curated()
        )


def test_the_reading_is_watched_can_be_stopped_and_has_the_time_that_is_left(found: Sift) -> None:
    taught, notes = sets.poisoned(), list[str]()

    def stop(done: float, note: str = "") -> None:
        notes.append(note)
        if "trigger of accused images" in note:
            raise Cancelled("enough")

    def late(done: float, note: str = "") -> None:
        del done, note
        raise OutOfTime("The time for the sift was used up.")

    with pytest.raises(Cancelled):
        sift(taught.model, taught.train, toys.curated(), METHODS, seed=0, progress=stop)
    assert notes[0].startswith("clean_distance")
    (remark,) = carried_rates.remarks(
        taught.model, taught.train, found.report, toys.curated(), late
    )
    assert remark == f"{carried_rates.UNMEASURED}: The time for the sift was used up."


def two_labels(found: Sift) -> tuple[Suspect, ...]:
    """The suspects, all for the proof, and the same once more as if of another label."""
    own = [replace(one, proof=True) for one in found.report.suspects]
    return (*own, *(replace(one, label=toys.TARGET - 1) for one in own))


def test_clean_images_are_measured_once_for_all_labels(
    found: Sift, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, count = torch.linalg.eigh, list[int]()

    def counted(matrix: torch.Tensor) -> Any:
        count.append(len(matrix))
        return whole(matrix)

    taught, suspects = sets.poisoned(), two_labels(found)
    classes = tuple(replace(one, stands_out=True) for one in found.report.classes)
    report = replace(found.report, suspects=suspects, classes=classes)
    monkeypatch.setattr(torch.linalg, "eigh", counted)

    assert len(rates(taught.model, taught.train, report, toys.curated())) == 2
    assert len(count) == 2  # of all images, and of half of them
    moments.replays_of_proof(taught.model, taught.train, suspects, toys.curated())
    assert len(count) == 4


def replayed(found: Sift) -> list[Trigger]:
    taught, suspects = sets.poisoned(), two_labels(found)[: len(found.report.suspects)]
    made = moments.replays_of_proof(taught.model, taught.train, suspects, toys.curated())
    return [deserialise(one.data) for one in made]


def success(trigger: Trigger) -> float:
    return asr(sets.poisoned().model, toys.curated().holdout, trigger, toys.TARGET, "any").low


def weak() -> Trigger:
    """The faintest of some bright corners that works at all."""
    plain = torch.zeros(1, *toys.manifest().input_size, dtype=torch.uint8)
    corner = toys.stamped(plain)[0].float() / 255
    faint = [AdditiveTrigger(corner * share) for share in torch.linspace(0.02, 1, 50).tolist()]
    return next(one for one in faint if success(one) > moments.WORKS)


def test_of_two_triggers_the_one_that_works_better_is_replayed(
    found: Sift, monkeypatch: pytest.MonkeyPatch
) -> None:
    (best,) = replayed(found)
    monkeypatch.setattr(
        moments, "carried_by", lambda *_, **__: Carried(weak(), weak(), relabelled=True)
    )

    (one,) = replayed(found)

    assert success(weak()) < 0.6
    assert success(one) > 0.8
    assert success(best) > 0.8


def test_where_nothing_can_be_read_off_the_images_their_moments_are_replayed(
    found: Sift, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("sizes differ")

    monkeypatch.setattr(moments, "carried_by", crash)

    (one,) = replayed(found)

    assert success(one) > 0.8
    assert "sizes differ" in caplog.text
