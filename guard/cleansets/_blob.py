"""A clean set as one safetensors blob, written once and checked whenever it is read."""

import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from guard.cleansets._raw import check_names, check_size, refuse
from guard.core.digests import canonical_json, sha256
from guard.core.evidence import CleanSetFacts

#: safetensors writes several metadata entries in random order; a single entry keeps the bytes the
#: same each time.
METADATA = "guard.cleanset"
LAYOUT = 1
PARTS = 3  # search, calibration, hold-out
_DTYPES = {"images": np.uint8, "labels": np.int64, "split": np.uint8}


def write(
    images: np.ndarray, labels: np.ndarray, split: np.ndarray, name: str, names: tuple[str, ...]
) -> bytes:
    """The blob; equal arguments give equal bytes."""
    facts = {"layout": LAYOUT, "name": name, "classes": list(names)}
    arrays = {"images": images, "labels": labels, "split": split}
    return safetensors_numpy.save(arrays, metadata={METADATA: canonical_json(facts).decode()})


def load(data: bytes, name: str) -> tuple[CleanSetFacts, np.ndarray, np.ndarray, np.ndarray]:
    """Read and check a clean set.

    Args:
        data: what `curate` wrote.
        name: what the clean set is called in the facts; its digest is its identity.

    Returns:
        Facts, images (uint8 N,C,H,W), labels (int64 N) and split codes (uint8 N: 0 search,
        1 calibration, 2 hold-out).

    Raises:
        CleanSetError: the bytes are not such a blob, or its arrays contradict each other.
    """
    try:
        arrays = safetensors_numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise refuse(
            "bad_blob", "The stored clean set is not a safetensors blob; add the clean set again."
        ) from error
    names = class_names(data)
    if set(arrays) != set(_DTYPES) or any(
        arrays[key].dtype != dtype for key, dtype in _DTYPES.items()
    ):
        raise refuse(
            "bad_blob",
            "The stored clean set has other arrays than images, labels and split; add it again.",
        )
    # A copy, because the arrays are read-only views of `data` and torch warns about those.
    images, labels, split = (np.array(arrays[key]) for key in _DTYPES)
    if images.ndim != 4 or labels.shape != (len(images),) or split.shape != (len(images),):
        raise refuse(
            "bad_blob",
            "The stored clean set's arrays do not fit each other; add the clean set again.",
        )
    check_size(len(images), images[0].size if len(images) else 0)
    facts = _facts(sha256(data), name, images, labels, split, len(names))
    return facts, images, labels, split


def facts_of(data: bytes, name: str) -> CleanSetFacts:
    """The facts alone.

    Raises:
        CleanSetError: as `load`.
    """
    return load(data, name)[0]


def class_names(data: bytes) -> tuple[str, ...]:
    """The names of the classes, in class order.

    Raises:
        CleanSetError: the blob has no header of ours.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        facts: Any = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][METADATA])
        layout, names = facts["layout"], facts["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise refuse(
            "bad_blob", "The stored clean set has no header of ours; add the clean set again."
        ) from error
    if layout != LAYOUT or not isinstance(names, list):
        raise refuse(
            "bad_blob",
            f"The stored clean set has the layout {layout!r:.20}, not {LAYOUT}; add it again.",
        )
    return check_names(names)


def _facts(
    digest: str, name: str, images: np.ndarray, labels: np.ndarray, split: np.ndarray, classes: int
) -> CleanSetFacts:
    inside = labels.min() >= 0 and labels.max() < classes and split.max() < PARTS
    table = np.zeros((classes, PARTS), np.int64)
    if inside:
        np.add.at(table, (labels, split), 1)
    if not inside or not table.all():
        raise refuse(
            "bad_blob",
            "The stored clean set lacks a class in one of its parts; add the clean set again.",
        )
    search, calibration, holdout = (int(count) for count in table.sum(0))
    channels, height, width = images.shape[1:]
    return CleanSetFacts(
        name=name,
        digest=digest,
        classes=classes,
        channels=channels,
        height=height,
        width=width,
        per_class=int(table.sum(1).min()),
        search=search,
        calibration=calibration,
        holdout=holdout,
    )
