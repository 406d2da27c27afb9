"""The trial's synthetic sift is as precise as it says, and nothing of the proof part teaches."""

import torch

from benchmarks import informed_trial as trial
from benchmarks.attacks import ATTACKS
from guard.ml.cleanset import Labelled


def test_the_synthetic_sift_has_its_precision_and_recall() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 10
    images = torch.randint(0, 256, (2000, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = Labelled(images, labels)
    poisoned = ATTACKS.get("patch")(target=trial.TARGET).poison(data.images, data.labels, 0.05)
    believed = torch.nn.functional.one_hot(data.labels, 10).float()
    sift = trial.synthetic(poisoned, believed, seed=1)
    true = {*poisoned.index.tolist()}
    hits = [one for one in sift.suspects if one.index in true]
    accused = trial.images_of(poisoned, sift)

    assert len(hits) == 95
    assert len(sift.suspects) == 100
    assert all(one.estimated == int(labels[one.index]) for one in sift.suspects)
    assert {one.index for one in sift.suspects}.isdisjoint(sift.trusted)
    assert len(accused.taught.suspects) == 70
    assert 0 < len(accused.proof.images) <= 30
