"""Whatever an upload's weights were rewritten to, detectors say the same of the same function."""

import json
from functools import cache

import pytest
import torch

from guard.core.evidence import Finding
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet
from guard.ml.networks.architectures import ImageModel
from guard.vetting import canary_trial, examine
from tests.rewrites import REWRITES, in_half_precision, permuted, rewritten

ALL = {**REWRITES, "permuted": permuted(), "float16": in_half_precision}
#: Detectors that take under two seconds on the kit meet every rewriting, the others the worst one.
QUICK = ("margin", "weight_statistics")
KIT: dict[str, str | None] = json.loads((canary_trial.KIT / canary_trial.CONTENTS).read_text())
#: One that no policy uses may have no model in the kit that it must flag.
PROVEN = {name for name in DETECTORS.of(Modality.IMAGES) if KIT[name] is not None}
WORST = REWRITES["all at once"]
SAME_SCORE = 0.1  # scores lie in 0..1; a search from another rounding ends elsewhere by so much


@pytest.fixture(scope="module")
def clean() -> CleanSet:
    return canary_trial.clean_set().visible()


def backdoored_for(detector: str) -> str | None:
    """The file of the kit that holds what this detector must flag."""
    return KIT[detector]


def model(name: str | None) -> ImageModel:
    assert name is not None, "the kit holds a backdoored model for each detector"
    return examine.open_model(canary_trial.KIT / name, device="cpu")


@cache
def plainly(detector: str, name: str | None) -> list[Finding]:
    """What it finds in the model as it is, once for all rewritings."""
    return DETECTORS.get(detector)()(model(name), canary_trial.clean_set().visible(), seed=0)


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: finding.score)


@pytest.mark.threat("B08")
@pytest.mark.parametrize("rewrite", ALL)
@pytest.mark.parametrize("detector", QUICK)
def test_a_backdoor_stays_found_and_an_honest_model_stays_unaccused(
    detector: str, rewrite: str, clean: CleanSet
) -> None:
    method = DETECTORS.get(detector)()
    for name in (backdoored_for(detector), canary_trial.GOOD):
        before = plainly(detector, name)
        after = method(rewritten(model(name), ALL[rewrite]), clean, seed=0)

        assert worst(after).score == pytest.approx(worst(before).score, abs=SAME_SCORE)
        assert suspects(after) == suspects(before)


def suspects(findings: list[Finding]) -> set[object]:
    return {finding.target for finding in findings if finding.suspicious}


@pytest.mark.parametrize("detector", sorted(PROVEN - set(QUICK)))
def test_the_worst_rewriting_hides_nothing_from_a_search(detector: str, clean: CleanSet) -> None:
    name = backdoored_for(detector)
    torch.set_num_threads(1)

    after = DETECTORS.get(detector)()(rewritten(model(name), WORST), clean, seed=0)

    assert suspects(after)


def test_the_worst_rewriting_makes_patch_inversion_accuse_no_honest_model(clean: CleanSet) -> None:
    method = PatchInversion(again=0, reference_rounds=0)

    assert suspects(method(rewritten(model(canary_trial.GOOD), WORST), clean, seed=0)) == set()
