"""What is measured on the hold-out may change what a verdict says of an ASR.

Never what a method finds.
"""

from dataclasses import replace

import pytest
import torch

from guard.core.digests import sha256
from guard.core.evidence import Evidence
from guard.ml.cleanset import Labelled
from guard.vetting import canary_trial, examine
from guard.vetting.case import VETTED_DTYPE

BAD = canary_trial.KIT / "patch.safetensors"
QUICK = {"patch_inversion": {"steps": 40, "natural_steps": 20}, "margin": {}}


def looked(holdout: Labelled | None) -> list[Evidence]:
    curated = canary_trial.clean_set()
    if holdout is not None:
        curated = replace(curated, holdout=holdout)
    found = examine.examine(
        examine.open_model(BAD, device="cpu"), sha256(BAD.read_bytes()), curated, QUICK, seed=3
    )
    return [item for item in found.evidence if item.method in QUICK]


@pytest.mark.threat("A23")
def test_weights_are_vetted_in_the_dtype_that_the_verdict_names() -> None:
    model = examine.open_model(BAD, device="cpu")

    floating = {one.dtype for one in model.state_dict().values() if one.is_floating_point()}
    assert floating == {getattr(torch, VETTED_DTYPE)}


def test_no_method_sees_the_hold_out() -> None:
    """papers/detection.md 7.11 (vii).

    Other pictures there, and findings are the same to the bit.
    """
    true = canary_trial.clean_set().holdout
    dark = Labelled(torch.zeros_like(true.images), true.labels)

    before, after = looked(None), looked(dark)

    assert {item.method for item in before} == set(QUICK)
    for one, other in zip(before, after, strict=True):
        assert [(f.target, f.score, f.trigger_digest, dict(f.numbers)) for f in one.findings] == [
            (f.target, f.score, f.trigger_digest, dict(f.numbers)) for f in other.findings
        ]
    rates = [
        [f.asr.estimate for item in run for f in item.findings if f.asr] for run in (before, after)
    ]
    assert rates[0]
    assert rates[0] != rates[1]  # the hold-out did change
