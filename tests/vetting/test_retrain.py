"""A retrained network is a new artifact, with facts that can be stored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.core.errors import Cancelled, CleanSetError, MethodFailed, UnknownMethod
from guard.core.evidence import Accuracy, AsrEstimate
from guard.core.manifest import Manifest
from guard.core.plain import from_plain, to_plain
from guard.core.purification import OnSuspects
from guard.core.retraining import RetrainingFacts
from guard.core.states import Verdict
from guard.core.trainset import Suspect
from guard.core.verdict import VerdictFacts
from guard.formats._canonical import read_canonical
from guard.ml.measure import accuracy
from guard.ml.networks.architectures import load
from guard.ml.statistics import wilson
from guard.ml.training.checkpoints import FolderCheckpoint
from guard.policy import load_policy
from guard.policy.retrained import withheld
from guard.retrainers.sifted import Sifted
from guard.vetting.retrain import on_proof, request_of, retrain
from tests import toys
from tests.retrainers import sets

QUICK = Sifted.quick()


def run(folder: Path, **changes: Any) -> tuple[str, RetrainingFacts]:
    given: dict[str, Any] = {
        "manifest": toys.manifest(),
        "train": sets.poisoned(),
        "curated": toys.curated(),
        "sifted": sets.sift(),
        "method": "sifted",
        "parameters": QUICK,
        "out": folder / "new.safetensors",
        "checkpoint": sets.Memory(),
        "device": "cpu",
    }
    return retrain(**{**given, **changes})


def test_the_file_holds_the_network_that_was_measured(tmp_path: Path) -> None:
    digest, facts = run(tmp_path)
    manifest, tensors = read_canonical(tmp_path / "new.safetensors")
    assert isinstance(manifest, Manifest)
    model = load(manifest, tensors)

    assert len(digest) == 64
    assert manifest == toys.manifest()
    assert accuracy(model, toys.curated().holdout, toys.CLASSES) == facts.acc_after
    assert facts.acc_after.overall > 0.8


def test_its_facts_can_be_stored_and_read_again(tmp_path: Path) -> None:
    _, facts = run(tmp_path, parent=(toys.network(), "a" * 64), seed=7)
    stored = json.loads(json.dumps(to_plain(facts), allow_nan=False))

    assert from_plain(RetrainingFacts, stored) == facts
    assert (facts.parent, facts.seed, facts.method) == ("a" * 64, 7, "sifted")
    assert facts.acc_before is not None
    assert facts.acc_before.images == len(toys.curated().holdout)
    assert facts.training_set == sets.poisoned().facts.digest
    found = sets.sift()
    assert (facts.suspects, facts.proof, facts.trusted) == (
        len(found.suspects),
        len(found.proof),
        len(found.trusted),
    )
    assert facts.numbers == {"images": float(sets.IMAGES - sets.POISONED), "alike": 0.0}


def test_without_a_parent_there_is_nothing_before(tmp_path: Path) -> None:
    _, facts = run(tmp_path)

    assert facts.parent == ""
    assert facts.acc_before is None


def request(**changes: Any) -> str:
    given: dict[str, Any] = {
        "manifest": toys.manifest(),
        "train": sets.poisoned(),
        "curated": toys.curated(),
        "sifted": sets.sift(),
        "method": "sifted",
        "parameters": QUICK,
        "seed": 0,
    }
    return request_of(**{**given, **changes})


def test_a_request_is_all_that_the_result_depends_on() -> None:
    curated, train = toys.curated(), sets.poisoned()
    others = [
        request(seed=1),
        request(parameters={**QUICK, "rate": 1e-3}),
        request(method="d_st", parameters={}),
        request(manifest=toys.manifest(mean=(0.4,))),
        request(curated=replace(curated, facts=replace(curated.facts, digest="1" * 64))),
        request(train=replace(train, facts=replace(train.facts, digest="2" * 64))),
        request(sifted=replace(sets.sift(), proof=np.array([7]))),
    ]

    assert request() == request()
    assert len({request(), *others}) == 1 + len(others)


def test_an_interrupted_run_ends_in_the_same_artifact(tmp_path: Path) -> None:
    def stop(done: float, note: str = "") -> None:
        if done > 0.5:
            raise Cancelled("enough")

    checkpoint = FolderCheckpoint(tmp_path / "state", request())
    with pytest.raises(Cancelled):
        run(tmp_path, checkpoint=checkpoint, progress=stop)
    assert not (tmp_path / "new.safetensors").exists()

    again, _ = run(tmp_path, checkpoint=checkpoint)

    assert again == run(tmp_path)[0]


def test_a_crash_is_a_failure_of_the_method_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Sifted, "retrain", broken)
    with pytest.raises(MethodFailed, match="It crashed: ZeroDivisionError: oh"):
        run(tmp_path)

    assert not list(tmp_path.iterdir())


def obeying(successes: int, fdr: float = 0.05) -> RetrainingFacts:
    """Facts of a network that sends so many of 100 proof images to their label."""
    low, high = wilson(successes, 100)
    after = AsrEstimate(
        target=1,
        family="training-set",
        successes=successes,
        trials=100,
        estimate=successes / 100,
        low=low,
        high=high,
    )
    accuracy = Accuracy(overall=0.9, per_class=(0.9,), images=100)
    return RetrainingFacts(
        method="sifted",
        version=1,
        parameters={},
        request="",
        parent="",
        training_set="",
        cleanset="",
        images=1,
        suspects=1,
        proof=1,
        trusted=1,
        acc_before=None,
        acc_after=accuracy,
        seconds=1.0,
        seed=0,
        on_proof=(OnSuspects(before=replace(after, successes=97), after=after, fdr=fdr),),
    )


@pytest.mark.parametrize(
    ("given", "became"),
    [
        (Verdict.CLEARED, Verdict.REJECTED),
        (Verdict.HELD, Verdict.REJECTED),
        (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ],
)
def test_a_network_that_obeys_proof_images_gets_no_clearance(
    given: Verdict, became: Verdict
) -> None:
    verdict = VerdictFacts(verdict=given, reasons=("first",))

    found = withheld(load_policy(None), verdict, obeying(30))

    assert found.verdict is became
    assert "30 of 100 accused training images" in found.reasons[0]
    assert found.reasons[1:] == ("first",)


def test_where_poison_is_only_reported_the_verdict_stays() -> None:
    rule = replace(load_policy(None).training_set, action="reported")
    policy = replace(load_policy(None), training_set=rule)
    verdict = VerdictFacts(verdict=Verdict.CLEARED, reasons=())

    found = withheld(policy, verdict, obeying(30))

    assert found.verdict is Verdict.CLEARED
    assert "30 of 100 accused training images" in found.reasons[0]


def test_clean_images_among_the_proof_images_withhold_nothing() -> None:
    verdict = VerdictFacts(verdict=Verdict.CLEARED, reasons=())

    assert withheld(load_policy(None), verdict, obeying(4)) is verdict


def test_proof_images_are_tried_on_both_networks(tmp_path: Path) -> None:
    _, facts = run(tmp_path)
    model, train = toys.network(), sets.poisoned()
    suspects = [
        Suspect(index=place, label=toys.TARGET, estimated=3, fdr=0.0, source="", proof=True)
        for place in range(sets.POISONED)
    ]

    tried = on_proof(facts, model, model, train, suspects)
    (one,) = tried.on_proof

    assert one.before == one.after
    assert one.after.trials == sets.POISONED
    assert tried.unproved == ()
    assert on_proof(facts, model, model, train, suspects[:3]).unproved
    assert on_proof(facts, model, model, train, []) is facts


def test_a_clean_set_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CleanSetError, match="name a clean set"):
        run(tmp_path, manifest=toys.manifest(input_size=(1, 16, 16)))


def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownMethod):
        run(tmp_path, method="../sifted", parameters={})


def test_numbers_that_are_not_finite_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Sifted.retrain

    def odd(self: Sifted, *args: Any, **kwargs: Any) -> Any:
        return replace(made(self, *args, **kwargs), numbers={"a": float("nan"), "b": 1.0})

    monkeypatch.setattr(Sifted, "retrain", odd)
    assert run(tmp_path)[1].numbers == {"b": 1.0}
