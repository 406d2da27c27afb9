"""Where `config.json` leaves mean or std out, the verdict and the errors say what was used."""

from pathlib import Path
from typing import Any

import pytest
import torch

from guard.core.config_forms import assumed_remark
from guard.core.errors import ArtifactRejected, ManifestRejected
from guard.core.manifest import Manifest
from guard.core.manifests import manifest_from
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from tests.flow.place import MANIFEST, Place
from tests.flow.test_stages import decided, finding
from tests.vetting.test_tournament import signed

CFG = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25]}


def config(*left_out: str, **changes: Any) -> dict[str, Any]:
    cfg = {key: value for key, value in {**CFG, **changes}.items() if key not in left_out}
    return {**MANIFEST.to_dict(), "guard": {}, "pretrained_cfg": cfg}


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        (("mean", "std"), "gives no mean and no std: images were fed with mean 0 and std 1"),
        (("mean",), "gives no mean: images were fed with mean 0, which"),
        (("std",), "gives no std: images were fed with std 1, which"),
        ((), None),
    ],
)
def test_a_remark_names_what_was_left_out_and_what_was_used(
    left_out: tuple[str, ...], says: str | None
) -> None:
    remark = assumed_remark(Manifest.from_dict(config(*left_out)).assumed)

    assert (says in remark) if says else not remark


def test_what_was_left_out_outlasts_the_canonical_form() -> None:
    canonical = manifest_from(Manifest.from_dict(config("mean")).to_dict())

    assert isinstance(canonical, Manifest)
    assert canonical.assumed == ("mean",)


def test_a_signed_verdict_has_the_remark_among_its_reasons(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert MANIFEST.assumed == ("mean", "std")

    scan = decided(place, finding(suspicious=True))

    assert assumed_remark(("mean", "std")) in signed(place, scan)["reasons"]


def test_an_error_about_logits_has_the_remark_too() -> None:
    for left_out in (("mean", "std"), ()):
        manifest = Manifest.from_dict(config(*left_out))
        with seeded(0):
            tensors = architectures.export(architectures.build(manifest))
        tensors["linear.weight"] = torch.full_like(tensors["linear.weight"], torch.inf)

        with pytest.raises(ArtifactRejected) as caught:
            architectures.load(manifest, tensors)

        assert caught.value.sentence.endswith(assumed_remark(left_out) or "have run away.")


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"mean": [300.0]}, "manifest_mixed_scale", "write both for 0..1"),
        ({"mean": [128.0]}, "manifest_mixed_scale", "mean and std"),
        ({"mean": [128.0], "std": [0.5]}, "manifest_mixed_scale", "neither both for images in"),
        ({"mean": ["x"]}, "manifest_bad_mean", r"pretrained_cfg\.mean must hold 1 finite"),
        ({"std": [0.1, 0.2]}, "manifest_bad_std", r"pretrained_cfg\.std must hold 1 finite"),
        ({"std": [0]}, "manifest_bad_std", r"pretrained_cfg\.std must lie in"),
    ],
)
def test_an_error_about_mean_or_std_names_the_key_and_the_mend(
    changes: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(ManifestRejected, match=says) as caught:
        Manifest.from_dict(config(**changes))

    assert caught.value.code == code
