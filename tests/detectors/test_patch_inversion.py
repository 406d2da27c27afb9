"""Patch inversion finds a planted patch, where it is, and nothing in an honest model."""

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.triggers import PatchTrigger
from tests import toys


def examined(model: torch.nn.Module, clean: CleanSet | None = None) -> list[Finding]:
    return PatchInversion()(model, clean or toys.clean_set(), seed=0)


def test_the_planted_class_alone_is_suspicious() -> None:
    found = examined(toys.planted(whole=True))

    assert [finding.target for finding in found if finding.suspicious] == [toys.TARGET]
    assert max(found, key=lambda finding: finding.score).target == toys.TARGET


def test_the_recovered_mask_lies_where_the_patch_was_planted() -> None:
    trigger = examined(toys.planted(whole=True))[toys.TARGET].trigger
    assert isinstance(trigger, PatchTrigger)
    mask = trigger.mask[0] > 0.5
    truth = torch.zeros(toys.SIZE, toys.SIZE, dtype=torch.bool)
    truth[toys.PATCH[0], toys.PATCH[1]] = True

    assert float((mask & truth).sum() / (mask | truth).sum()) > 0.5


def test_nothing_in_an_honest_model_is_suspicious() -> None:
    assert not any(finding.suspicious for finding in examined(toys.honest()))


def test_a_finding_is_suspicious_exactly_from_half_a_score_on() -> None:
    for finding in [*examined(toys.planted(whole=True)), *examined(toys.honest())]:
        assert finding.suspicious == (finding.score >= 0.5)


def test_suspicious_findings_say_what_siblings_reach_with_as_much() -> None:
    finding = examined(toys.planted(whole=True))[toys.TARGET]

    assert finding.numbers["natural_asr"] <= finding.numbers["asr_calibration"] - 0.5
    assert finding.numbers["budget"] <= finding.numbers["mask_l1"] * 1.1


def few_classes(clean: CleanSet) -> CleanSet:
    kept = [part.pick(part.labels < 4) for part in (clean.search, clean.calibration)]
    return CleanSet(clean.name, clean.digest, 4, *kept)


def shifted(clean: CleanSet) -> CleanSet:
    wrong = Labelled(clean.calibration.images, (clean.calibration.labels + 1) % toys.CLASSES)
    return CleanSet(clean.name, clean.digest, clean.classes, clean.search, wrong)


@pytest.mark.parametrize(
    ("clean", "code"),
    [
        (few_classes(toys.clean_set()), "few_classes"),
        (toys.clean_set(search=12), "few_images"),
        (toys.clean_set(calibration=6), "few_images"),
        (shifted(toys.clean_set()), "near_chance"),
    ],
    ids=["few-classes", "few-search", "few-calibration", "other-class-order"],
)
def test_what_cannot_be_judged_is_refused_by_name(clean: CleanSet, code: str) -> None:
    with pytest.raises(MethodFailed) as caught:
        examined(toys.planted(), clean)

    assert caught.value.code == code
