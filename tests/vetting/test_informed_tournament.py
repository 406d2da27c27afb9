"""A model whose training set was sifted: informed defenses come first, and all are tried on proof.

The suspects are the true poison here, given by the test; what finds them is tested elsewhere.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import guard
from guard.core.errors import InputError
from guard.core.evidence import Finding
from guard.core.purification import OnSuspects
from guard.core.states import Verdict
from guard.core.trainset import Suspect
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.policy import DefenseRule, DetectorRule, Policy, TrainingSetRule
from guard.reports import Report
from guard.trainsets import TrainingSet, from_arrays
from tests.cli import models
from tests.vetting.test_tournament_here import FIRST, Ring, leave, ring

__all__ = ["ring"]
RELABEL = DefenseRule(name="relabelling", informed=True)
UNLEARN = DefenseRule(name="d_br", informed=True)
PUBLISHED = replace(UNLEARN, params={"published": True})
POISON = 200  # of the images that `models` teaches a backdoored model


def sees_nothing(*_args: Any, **_more: Any) -> list[Finding]:
    """A detector that misses the backdoor."""
    return []


@cache
def training_set() -> tuple[TrainingSet, tuple[Suspect, ...], tuple[int, ...]]:
    """What taught the backdoored model of `tests.cli.models`, its poison, and trusted places."""
    images, labels = models.pictures(900, seed=2)
    bad = models.stamped(torch.from_numpy(images[:POISON])).numpy()
    given = torch.cat([torch.from_numpy(labels), torch.full((POISON,), models.TARGET)]).numpy()
    every = torch.cat([torch.from_numpy(images), torch.from_numpy(bad)]).numpy()
    suspects = tuple(
        Suspect(
            index=900 + place,
            label=models.TARGET,
            estimated=int(labels[place]),
            fdr=0.02,
            source=f"image {900 + place}",
            proof=place % 3 == 0,
        )
        for place in range(POISON)
        if labels[place] != models.TARGET
    )
    names = tuple(str(name) for name in models.MODEL.label_names)
    return from_arrays(every, given, names), suspects, tuple(range(200, 500))


def purified(
    ring: Ring, *rules: DefenseRule, suspects: Sequence[Suspect] | None = None, **more: Any
) -> Report:
    train, accused, trusted = training_set()
    policy = Policy(name="ring", detectors={"patch_inversion": DetectorRule()}, defenses=rules)
    return guard.purify(
        ring.model,
        cleanset=ring.clean,
        out=ring.out,
        **{
            "policy": policy,
            "training_set": train,
            "suspects": accused if suspects is None else suspects,
            "trusted": trusted,
            **more,
        },
    )


def obeyed(report: Report) -> OnSuspects:
    assert report.purification is not None
    (found,) = report.purification.suspects
    return found


@pytest.mark.parametrize("rule", [RELABEL, UNLEARN])
def test_a_repair_that_learns_from_suspects_wins_and_is_proved_on_others(
    rule: DefenseRule, ring: Ring
) -> None:
    report = purified(ring, rule)
    shown = models.unseen(300)
    others = models.stamped(shown.images[shown.labels != models.TARGET])

    assert (report.verdict, report.chain) == (Verdict.PURIFIED, rule.name), report.reasons
    assert obeyed(report).before.estimate > 0.9
    assert obeyed(report).after.high <= 0.10 + obeyed(report).fdr
    assert models.success(ring.model, others) > 0.9
    assert models.success(ring.out, others) <= 0.10
    assert report.purification.acc_after.overall >= report.purification.acc_before.overall - 0.02


def test_the_published_way_leaves_the_backdoor_of_this_model_and_is_not_served(ring: Ring) -> None:
    report = purified(ring, PUBLISHED)

    assert report.verdict is Verdict.REJECTED
    assert report.candidates[0]["facts"]["suspects"][0]["after"]["estimate"] > 0.5
    assert not ring.out.exists()


def test_informed_defenses_are_tried_first_and_the_others_are_tried_on_the_proof_too(
    ring: Ring,
) -> None:
    ring.monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", sees_nothing)
    ring.play("shared_distillation", leave)
    report = purified(ring, FIRST, PUBLISHED)
    informed, other = report.candidates

    assert [item["defense"] for item in report.candidates] == ["d_br", "shared_distillation"]
    assert informed["facts"]["suspects"]
    (found,) = other["facts"]["suspects"]
    assert found["after"] == found["before"]
    assert "accused training images that were kept for the proof" in " ".join(other["reasons"])


@pytest.mark.parametrize("count", [0, 10])
def test_without_enough_suspects_the_tournament_is_what_it_was(count: int, ring: Ring) -> None:
    ring.play("shared_distillation", ring.heal)
    report = purified(ring, RELABEL, FIRST, suspects=training_set()[1][:count])

    assert (report.verdict, report.chain) == (Verdict.PURIFIED, "shared_distillation")
    assert len(report.candidates) == 1
    assert report.purification.suspects == ()


def test_a_sifts_own_accusation_is_enough_for_a_repair(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "examine", sees_nothing)
    report = purified(ring, RELABEL)

    assert (report.verdict, report.chain) == (Verdict.PURIFIED, "relabelling"), report.reasons
    assert report.asr == obeyed(report).after


def test_a_policy_that_requires_a_sift_decides_nothing_without_one(ring: Ring) -> None:
    policy = Policy(
        name="ring",
        detectors={"patch_inversion": DetectorRule()},
        defenses=(FIRST,),
        training_set=TrainingSetRule(required=True),
    )
    ring.play("shared_distillation", ring.heal)
    without = guard.scan(ring.model, cleanset=ring.clean, policy=policy)
    sifted = purified(ring, policy=policy)

    assert without.verdict is Verdict.INCONCLUSIVE
    assert "requires a sift of the training set" in without.reasons[0]
    assert sifted.verdict is Verdict.PURIFIED


def test_suspects_need_their_training_set(ring: Ring) -> None:
    with pytest.raises(InputError, match="the training set that they are in"):
        purified(ring, RELABEL, training_set=None)


def test_a_defense_that_learns_from_suspects_fails_by_name_without_them(ring: Ring) -> None:
    report = ring.purify(defense="relabelling")

    assert "no training set of this model was sifted" in report.candidates[0]["failed"]


def test_the_accused_images_are_no_parameters(ring: Ring) -> None:
    seen: list[nn.Module] = []

    def look(own: Any, model: nn.Module) -> nn.Module:
        seen.append(model)
        assert len(own._accused.suspects) > 50
        return model

    ring.monkeypatch.setattr(
        DEFENSES.get("relabelling"),
        "repair",
        lambda own, model, _clean, *, progress: (progress(0.5, ""), look(own, model))[1],
    )
    (candidate,) = purified(ring, RELABEL).candidates

    assert seen
    assert set(candidate["parameters"]) == set(DEFENSES.get("relabelling")().parameters())
