"""Grey images that are stored in three equal channels serve a network of one channel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from guard.cleansets import curate, read_source
from guard.core.errors import CleanSetError
from guard.core.manifest import Manifest
from guard.flow.report import report_for
from guard.store import cleansets
from guard.store.session import transaction
from guard.vetting import examine, modalities
from guard.vetting.case import read_as_grey
from tests.cli import models
from tests.flow.place import MANIFEST, Place
from tests.flow.test_report import patch
from tests.flow.test_stages import decided, finding
from tests.vetting.test_tournament import signed

REMARK = "read as grey images"


def stored(path: Path, images: np.ndarray, labels: np.ndarray) -> bytes:
    np.savez(path, images=images, labels=labels)
    return curate(read_source(path), "set")[0]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A set in three equal channels, and one of which a single pixel has a colour."""
    images, labels = models.pictures(120, seed=4)
    copies = images.repeat(3, axis=1)
    coloured = copies.copy()
    coloured[7, 2, 0, 0] ^= 1
    folder = tmp_path_factory.mktemp("sets")
    return {
        "grey": stored(folder / "grey.npz", copies, labels),
        "coloured": stored(folder / "coloured.npz", coloured, labels),
    }


def test_three_equal_channels_become_one_for_a_network_of_one(sets: dict[str, bytes]) -> None:
    whole = modalities.of(MANIFEST.modality).read_clean(sets["grey"], "set")

    seen = modalities.fitted(models.MODEL, whole)

    assert seen.facts == replace(whole.facts, channels=1)
    for mine, its in ((seen.search, whole.search), (seen.holdout, whole.holdout)):
        assert mine.images.shape[1] == 1
        assert torch.equal(mine.images.expand_as(its.images), its.images)
        assert torch.equal(mine.labels, its.labels)
    assert modalities.fitted(models.MODEL, seen) is seen


def test_a_network_of_three_channels_takes_them_as_they_are(sets: dict[str, bytes]) -> None:
    whole = modalities.of(MANIFEST.modality).read_clean(sets["grey"], "set")
    network = replace(models.MODEL, input_size=(3, models.SIDE, models.SIDE), mean=(0.0,) * 3)

    assert modalities.fitted(network, whole) is whole


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (models.MODEL, "whose three channels differ"),
        (replace(models.MODEL, input_size=(1, 9, 9)), "3x12x12; name a clean set"),
    ],
)
def test_another_set_is_refused_by_its_cause(
    manifest: Manifest, says: str, sets: dict[str, bytes]
) -> None:
    whole = modalities.of(MANIFEST.modality).read_clean(sets["coloured"], "set")

    with pytest.raises(CleanSetError, match=says) as caught:
        modalities.fitted(manifest, whole)

    assert caught.value.code == "cleanset_wrong_size"


def test_what_is_measured_is_measured_in_one_channel(
    sets: dict[str, bytes], tmp_path: Path
) -> None:
    folder = models.saved(tmp_path / "model")
    model = examine.open_model(folder / "model.safetensors", device="cpu")
    whole = modalities.of(MANIFEST.modality).read_clean(sets["grey"], "set")

    found = examine.examine(model, "0" * 64, whole, {})

    assert found.accuracy is not None
    assert found.accuracy.overall > 0.8
    assert found.evidence[0].cleanset == whole.facts.digest
    assert found.smoke


class GreyPlace(Place):
    """Its clean set is stored in three equal channels."""

    def add_cleanset(self, name: str = "squares", size: int = 8, seed: int = 0) -> str:
        rng = np.random.default_rng(seed)
        path = self.folder / f"{name}.npz"
        images = rng.integers(0, 256, (400, 1, size, size), dtype=np.uint8).repeat(3, axis=1)
        np.savez(path, images=images, labels=np.arange(400) % 5)
        blob, facts = curate(read_source(path), name)
        with transaction(self.guard.engine) as session:
            cleansets.put(session, facts, self.clock)
        return self.guard.blobs.put_bytes(blob)


def test_a_signed_verdict_says_so(tmp_path: Path) -> None:
    place, plain = GreyPlace(tmp_path / "grey"), Place(tmp_path / "plain")
    reasons = {
        one: signed(one, decided(one, finding(suspicious=True)))["reasons"]
        for one in (place, plain)
    }

    assert [REMARK in " ".join(reasons[one]) for one in (place, plain)] == [True, False]


def test_the_report_shows_triggers_on_the_images_as_they_were_read(tmp_path: Path) -> None:
    place = GreyPlace(tmp_path)
    digest = place.guard.blobs.put_bytes(patch())
    found = replace(finding(suspicious=True), trigger_digest=digest)

    report = report_for(place.guard, decided(place, found))

    (trigger,) = report.triggers
    assert trigger.digest == digest
    assert np.asarray(trigger.stamped).shape == (1, 8, 8)


def test_nothing_is_said_where_no_manifest_is_stored(sets: dict[str, bytes]) -> None:
    whole = modalities.of(MANIFEST.modality).read_clean(sets["grey"], "set")

    assert read_as_grey(models.MODEL.to_dict(), whole.facts)
    assert not read_as_grey(None, whole.facts)
    assert not read_as_grey({"task": "text-to-graph"}, whole.facts)
