"""A sift from a model and its set to a judgement, on tiny sets, and what it refuses to look at."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import Cancelled
from guard.core.plain import from_plain, to_plain
from guard.core.sift import Poisoning, SiftReport, SiftRules, SiftVerdict
from guard.ml.cleanset import CuratedSet
from guard.ml.networks import architectures
from guard.ml.triggers.files import deserialise
from guard.sifters import SIFTERS
from guard.vetting.sift import Sift, replayed, sift
from tests import toys
from tests.sifters import sets

METHODS: Mapping[str, Mapping[str, Any]] = {
    "clean_distance": {},
    "label_gap": {"folds": 2, "seen": 3600},
}


@pytest.fixture(scope="module")
def poisoned() -> Sift:
    taught = sets.poisoned()
    return sift(taught.model, taught.train, toys.curated(), METHODS, seed=0)


def refused(**changes: Any) -> str:
    """The sentence of a sift that could not look."""
    taught = sets.honest()
    wanted: dict[str, Any] = {
        "model": taught.model,
        "train": taught.train,
        "curated": toys.curated(),
    } | changes
    found = sift(methods=METHODS, seed=0, **wanted)
    assert found.report.verdict is SiftVerdict.COULD_NOT_LOOK
    assert found.report.suspects == ()
    return found.report.reasons[0]


def test_poison_is_accused_its_class_named_and_the_model_rejected(poisoned: Sift) -> None:
    report, taught = poisoned.report, sets.poisoned()

    assert report.verdict is SiftVerdict.POISONED
    (target,) = [one for one in report.classes if one.stands_out]
    assert target.label == toys.TARGET
    assert target.poisoning is Poisoning.DIRTY_LABEL
    assert target.obedience is not None
    assert target.obedience.low > 0.5
    accused = np.array([one.index for one in report.suspects])
    assert taught.poisoned[accused].mean() >= 0.9
    assert taught.poisoned[accused].sum() >= 0.9 * sets.POISONED


def test_suspects_carry_their_true_class_their_rate_and_their_numbers(poisoned: Sift) -> None:
    truth = toys.labelled(sets.COUNT, 11).labels

    for one in poisoned.report.suspects:
        assert one.label == toys.TARGET
        assert one.fdr <= 0.1
        assert one.source == f"image {one.index}"
        assert set(one.numbers) == set(METHODS)
    known = [one for one in poisoned.report.suspects if one.estimated is not None]
    assert len(known) > 15
    assert np.mean([one.estimated == int(truth[one.index]) for one in known]) > 0.75


def test_about_three_of_ten_suspects_are_kept_for_the_proof_and_copies_go_together(
    poisoned: Sift,
) -> None:
    sifted, taught = poisoned.sifted(), sets.poisoned()

    assert 0.1 < len(sifted.proof) / len(poisoned.report.suspects) < 0.5
    assert not set(sifted.proof.tolist()) & set(sifted.suspects.tolist())
    assert len(sifted.relabelled) == len(sifted.suspects)
    parts = {
        taught.train.rows(np.array([one.index])).tobytes(): one.proof
        for one in poisoned.report.suspects
    }
    assert len(parts) > 1


def test_the_trigger_of_the_suspects_is_a_trigger_file_that_works(poisoned: Sift) -> None:
    (target,) = [one for one in poisoned.report.classes if one.stands_out]
    assert target.trigger is not None

    trigger = deserialise(poisoned.triggers[target.trigger.digest])

    assert trigger.family == target.trigger.family
    assert target.trigger.asr.estimate > 0.8


def test_what_is_replayed_follows_the_true_trigger(poisoned: Sift) -> None:
    taught = sets.poisoned()

    before = replayed(taught.model, taught.train, poisoned.report)
    after = replayed(sets.honest().model, taught.train, poisoned.report)

    assert before is not None
    assert after is not None
    assert abs(before.estimate - toys.success(taught.model)) < 0.2
    assert after.estimate < 0.3
    nobody = replace(poisoned.report, suspects=())
    assert replayed(taught.model, taught.train, nobody) is None


def test_clean_label_suspects_are_not_replayed(poisoned: Sift) -> None:
    """Their label is that of the image without the trigger, so that obeying it shows nothing."""
    taught = sets.poisoned()
    own = tuple(replace(one, poisoning=Poisoning.CLEAN_LABEL) for one in poisoned.report.classes)

    assert replayed(taught.model, taught.train, replace(poisoned.report, classes=own)) is None


def test_the_trusted_images_are_clean_and_of_every_class(poisoned: Sift) -> None:
    taught = sets.poisoned()

    assert not taught.poisoned[poisoned.trusted].any()
    assert set(taught.train.labels[poisoned.trusted].tolist()) == set(range(toys.CLASSES))


def test_where_sources_say_nothing_the_trigger_is_set_beside_the_siblings() -> None:
    taught = sets.poisoned()

    found = sift(
        taught.model,
        taught.train,
        toys.curated(),
        METHODS,
        rules=SiftRules(max_source_share=0.0),
        seed=0,
    )

    (target,) = [one for one in found.report.classes if one.stands_out]
    assert target.trigger is not None
    assert target.trigger.siblings is not None
    assert target.trigger.asr.low > target.trigger.siblings
    assert found.report.verdict is SiftVerdict.POISONED


def test_a_report_is_json_and_comes_back(poisoned: Sift) -> None:
    plain = json.loads(json.dumps(to_plain(poisoned.report), allow_nan=False))

    assert from_plain(SiftReport, plain) == poisoned.report


def test_the_same_seed_gives_the_same_report() -> None:
    taught = sets.honest()

    one, two = (
        sift(taught.model, taught.train, toys.curated(), METHODS, seed=4).report for _ in range(2)
    )

    assert replace(one, seconds=0.0, methods=()) == replace(two, seconds=0.0, methods=())


def test_an_honest_set_accuses_nobody_and_says_that_this_clears_nothing() -> None:
    taught = sets.honest()

    report = sift(taught.model, taught.train, toys.curated(), METHODS, seed=0).report

    assert report.verdict is SiftVerdict.NOTHING
    assert report.suspects == ()
    assert "clears nothing" in report.reasons[0]


def test_an_all_to_all_poisoning_is_found_by_its_map_where_it_was_learnt() -> None:
    taught = sets.mapped()

    report = sift(taught.model, taught.train, toys.curated(), METHODS, seed=0).report

    assert report.label_map is not None
    known = [label for label in report.label_map.mapping if label >= 0]
    assert report.label_map.mapping == tuple(
        (row + 1) % toys.CLASSES if label >= 0 else -1
        for row, label in enumerate(report.label_map.mapping)
    )
    assert len(known) >= toys.CLASSES / 2
    assert report.verdict is SiftVerdict.POISONED
    accused = np.array([one.index for one in report.suspects])
    assert taught.poisoned[accused].mean() >= 0.8


def test_a_set_of_another_size_or_number_of_classes_is_not_looked_at() -> None:
    taught = sets.honest()
    other = sets.from_arrays(np.zeros((6, 1, 9, 9), np.uint8), np.arange(6), sets.NAMES)
    fewer = sets.from_arrays(np.zeros((5, 1, 12, 12), np.uint8), np.arange(5), sets.NAMES[:5])

    assert "1x9x9" in refused(train=other)
    assert "6 classes" in refused(train=fewer)
    small = architectures.load(
        toys.manifest(input_size=(1, 9, 9)), architectures.export(taught.model)
    )
    assert "clean set" in refused(model=small)


def test_a_set_that_lacks_a_class_is_not_looked_at() -> None:
    taught = sets.honest()
    kept = np.flatnonzero(taught.train.labels != 4)
    part = sets.from_arrays(taught.train.rows(kept), taught.train.labels[kept], sets.NAMES)

    assert "'class 4'" in refused(train=part)


def test_too_few_clean_images_of_a_class_are_named() -> None:
    whole = toys.curated()
    few = CuratedSet(
        whole.facts,
        whole.search.pick(torch.arange(60)),
        whole.calibration.pick(torch.arange(54)),
        whole.holdout,
    )

    assert "19 images of class 'class 0'" in refused(curated=few)


def test_a_set_that_is_not_the_models_own_is_not_looked_at() -> None:
    taught = sets.honest()
    strange = sets.from_arrays(
        taught.train.rows(np.arange(sets.COUNT)),
        (taught.train.labels + np.arange(sets.COUNT) // 6 % 2) % toys.CLASSES,
        sets.NAMES,
    )

    assert "not the set that it learnt from" in refused(train=strange)


def test_a_model_that_is_not_finite_could_not_be_looked_at() -> None:
    broken = copy.deepcopy(sets.honest().model)
    next(broken.parameters()).data.view(-1)[0] = float("nan")

    assert "not finite" in refused(model=broken)


def test_a_large_set_is_measured_by_a_sample_that_the_seed_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guard.vetting._sift_checks.MOST_MEASURED", 50)
    taught = sets.honest()
    watched = sets.Watched(taught.train)

    found = sift(taught.model, watched.watching(), toys.curated(), {}, seed=0)

    assert len(set(watched.seen)) == 50
    assert found.report.accuracy is not None


def test_without_a_method_that_has_clean_scores_nothing_is_estimated() -> None:
    taught = sets.poisoned()

    found = sift(taught.model, taught.train, toys.curated(), {"spectral": {}}, seed=0)

    assert found.report.verdict is SiftVerdict.COULD_NOT_LOOK
    assert found.report.methods[0].null == 0
    assert found.report.methods[0].poisoning == ("clean-label", "dirty-label")
    assert found.scores["spectral"].shape == (sets.COUNT,)


def test_a_method_that_fails_leaves_no_silence() -> None:
    """Distance alone still accuses, and what the suspects have in common proves it.

    Nobody estimates where they come from. Where nobody is accused, half a look is no look.
    """
    methods = {"clean_distance": {}, "label_gap": {"min_per_class": 1000}}
    bad, good = sets.poisoned(), sets.honest()

    accused = sift(bad.model, bad.train, toys.curated(), methods, seed=0).report
    quiet = sift(good.model, good.train, toys.curated(), methods, seed=0).report

    assert accused.verdict is SiftVerdict.POISONED
    assert "a trigger estimated from them sends" in accused.reasons[0]
    assert len(accused.suspects) > 15
    assert any("label_gap" in reason for reason in accused.reasons)
    assert quiet.verdict is SiftVerdict.COULD_NOT_LOOK
    assert quiet.methods[1].failed is not None


def test_a_crash_of_a_method_is_part_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(SIFTERS.get("spectral"), "score", crash)
    taught = sets.honest()

    report = sift(taught.model, taught.train, toys.curated(), {"spectral": {}}, seed=0).report

    assert report.methods[0].failed == "RuntimeError: boom"
    assert report.verdict is SiftVerdict.COULD_NOT_LOOK


def test_a_sift_that_is_cancelled_ends_and_one_without_time_could_not_look() -> None:
    def stop(done: float, note: str = "") -> None:
        raise Cancelled("enough")

    taught = sets.honest()
    with pytest.raises(Cancelled):
        sift(taught.model, taught.train, toys.curated(), METHODS, seed=0, progress=stop)

    late = sift(taught.model, taught.train, toys.curated(), METHODS, seed=0, seconds=0.0).report
    assert late.verdict is SiftVerdict.COULD_NOT_LOOK


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    taught = sets.honest()
    before = copy.deepcopy(taught.model.state_dict())

    sift(taught.model, taught.train, toys.curated(), {"clean_distance": {}}, seed=0)

    assert all(torch.equal(before[key], value) for key, value in taught.model.state_dict().items())


def test_how_many_must_be_accused_before_the_clean_images_allow_the_rate_is_said() -> None:
    taught = sets.honest()

    report = sift(
        taught.model,
        taught.train,
        toys.curated(),
        {"clean_distance": {}},
        rules=SiftRules(max_fdr=0.01),
        seed=0,
    ).report

    assert report.least_p == pytest.approx(1 / 361)
    assert {one.resolved for one in report.classes} == {17}  # 60 images / 361 / 0.01, rounded up
