"""Factors that training could have left are no rewriting, and change nothing either."""

import pytest

from guard.detectors.patch_inversion import PatchInversion
from guard.ml.cleanset import CleanSet
from guard.ml.networks.canonical_form import canonical_form
from guard.vetting import canary_trial
from tests.metamorphic.test_detectors import (
    SAME_SCORE,
    clean,
    model,
    suspects,
    worst,
)
from tests.rewrites import (
    Rewrite,
    channels_scaled,
    head_scaled,
    last_block_scaled,
    one_after_another,
    rewritten,
    stream_channels_scaled,
    stream_scaled,
)

__all__ = ["clean"]  # a fixture

FACTORS = (2.0, 3.0, 9.0, 1 / 2, 1 / 3, 1 / 9)


def everywhere(factor: float) -> Rewrite:
    """Every scale that is free, by this factor or by up to it."""
    return one_after_another(
        last_block_scaled(factor),
        channels_scaled(factor),
        stream_scaled(factor),
        stream_channels_scaled(factor),
        head_scaled(factor),
    )


REWRITES = {
    **{f"everywhere x {factor:.2g}": everywhere(factor) for factor in FACTORS},
    # This one hides both backdoors from `margin` and `weight_statistics` (decision 0033).
    "the last stream's channels x 0.3..3": stream_channels_scaled(3.0),
}


def test_some_factors_are_too_small_to_be_taken_for_a_rewriting(clean: CleanSet) -> None:
    plain = model(canary_trial.GOOD)

    found = {
        name: canonical_form(rewritten(plain, rewrite), clean.search).rewritten
        for name, rewrite in REWRITES.items()
    }

    assert not found["the last stream's channels x 0.3..3"]
    assert found["everywhere x 9"]


@pytest.mark.parametrize("name", ["deep-patch.safetensors", canary_trial.GOOD])
def test_a_search_on_images_needs_no_canonical_form_for_that(name: str, clean: CleanSet) -> None:
    method = PatchInversion(again=0, reference_rounds=0)
    plain = model(name)

    before = method(plain, clean, seed=0)
    after = method(rewritten(plain, stream_channels_scaled(3.0)), clean, seed=0)

    assert suspects(after) == suspects(before)
    assert worst(after).score == pytest.approx(worst(before).score, abs=SAME_SCORE)
