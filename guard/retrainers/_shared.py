"""What retrainers have in common: their inputs' checks, batches, an optimiser."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.ml.cleanset import CleanSet
from guard.ml.training.fit import by_fan_in
from guard.trainsets import BATCH, Sifted, TrainingSet

_SHIFTED = 8  # of the image's side, a part: 4 of 32 pixels, as papers on small images have it


def _unwatched(_done: float) -> None:
    """The progress of a caller that shows none."""


def require(
    manifest: Manifest, train: TrainingSet, clean: CleanSet, sifted: Sifted, *, method: str
) -> None:
    """Refuse sets that are not of this model, and findings that are not of this training set.

    Raises:
        MethodFailed: `wrong_shape`, `wrong_classes` or `wrong_places`.
    """
    facts = train.facts
    have = {
        "training": (facts.channels, facts.height, facts.width),
        "clean": tuple(clean.search.images.shape[1:]),
    }
    for name, size in have.items():
        if size != manifest.input_size:
            raise MethodFailed(
                f"{method} trains a network for {_size(manifest.input_size)} images, and the "
                f"{name} set holds {_size(size)}; name a set of the model's own size.",
                code="wrong_shape",
            )
    for name, classes in {"training": train.classes, "clean": clean.classes}.items():
        if classes != manifest.num_classes:
            raise MethodFailed(
                f"{method} trains a network of {manifest.num_classes} classes, and the {name} set "
                f"has {classes}; name a set with the model's own classes.",
                code="wrong_classes",
            )
    given = np.concatenate([sifted.suspects, sifted.proof, sifted.trusted])
    if len(given) and not (given.min() >= 0 and given.max() < len(train)):
        raise MethodFailed(
            f"What the sift found names images that this training set of {len(train)} does not "
            "have; sift this set.",
            code="wrong_places",
        )


def left(train: TrainingSet, *dropped: np.ndarray) -> np.ndarray:
    """The places int64 of the training set without those that are dropped, in their order."""
    keep = np.ones(len(train), bool)
    for places in dropped:
        keep[places] = False
    return np.flatnonzero(keep)


def require_classes(
    labels: np.ndarray, classes: int, *, least: int, what: str, method: str
) -> None:
    """Refuse images of which some class has fewer than `least`.

    Args:
        labels: int64 N.
        what: the images, as they appear in the error message.

    Raises:
        MethodFailed: `too_few_images`.
    """
    counts = np.bincount(labels, minlength=classes)
    rarest = int(counts.argmin())
    if counts[rarest] < least:
        raise MethodFailed(
            f"{method} needs at least {least} {what} of every class; class {rarest} has "
            f"{counts[rarest]} images. Use a larger set, or a milder sift.",
            code="too_few_images",
        )


def batch_of(train: TrainingSet, places: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images float N,C,H,W in [0, 1] and labels int64 N at these places, read from disk."""
    images = torch.from_numpy(np.ascontiguousarray(train.rows(places)))
    labels = torch.from_numpy(train.labels[places])
    return images.to(device).float().div_(255), labels.to(device)


@torch.no_grad()
def chances(
    network: nn.Module,
    train: TrainingSet,
    places: np.ndarray,
    rows: np.ndarray,
    device: torch.device,
    *,
    watch: Callable[[float], None] = _unwatched,
) -> np.ndarray:
    """What probability a network gives class `rows[i]` for the image at `places[i]`, float32 n.

    Raises:
        MethodFailed: a logit is not finite, so that nothing can be sorted by it.
    """
    found = [np.empty(0, np.float32)]
    for start in range(0, len(places), BATCH):
        images, _ = batch_of(train, places[start : start + BATCH], device)
        logits = network(images)
        if not bool(torch.isfinite(logits).all()):
            raise MethodFailed(
                "The network that images are sorted by gives logits that are not finite.",
                code="non_finite",
            )
        given = logits.softmax(1).cpu().numpy()
        found.append(given[np.arange(len(given)), rows[start : start + BATCH]])
        watch((start + len(images)) / len(places))
    return np.concatenate(found)


def reach(train: TrainingSet) -> int:
    """How many pixels an augmentation may shift an image of this set."""
    return min(train.facts.height, train.facts.width) // _SHIFTED


def adam(weights: Iterable[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW with rates by fan-in, so that one rate suits networks of any width."""
    return torch.optim.AdamW(by_fan_in(list(weights), rate), weight_decay=decay)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in size)
