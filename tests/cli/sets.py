"""The training sets of the models in `tests.cli.models`, as files."""

from pathlib import Path

import numpy as np
import torch

from tests.cli import models

POISON = 200
#: Sifters' parameters that are enough for striped images.
QUICK = {"clean_distance": {}, "label_gap": {"folds": 2, "seen": 3600}}
#: What is enough to retrain on them, and the threads with which that is repeated to the bit.
EPOCHS = {"epochs": 6}
THREADS = 1


def training_set(path: Path, *, poisoned: bool) -> Path:
    """An `.npz` with the images that taught `models.saved`, as it does with `backdoored`."""
    images, labels = models.pictures(900, seed=2)
    if poisoned:
        bad = models.stamped(torch.from_numpy(images[:POISON])).numpy()
        images = np.concatenate([images, bad])
        labels = np.concatenate([labels, np.full(POISON, models.TARGET)])
    names = np.array(models.MODEL.label_names)
    np.savez(path, images=images, labels=labels, class_names=names)
    return path


def stamped(places: "np.ndarray | list[int]") -> int:
    """How many of the images at these places have the trigger."""
    return int((np.asarray(places) >= 900).sum())
