"""Check labelled images, drop duplicates, split the rest once, and write the clean set's blob."""

import hashlib

import numpy as np

from guard.cleansets._blob import facts_of, write
from guard.cleansets._raw import RawSet, check_names, check_size, refuse
from guard.core.evidence import CleanSetFacts

#: The fewest distinct images of a class that leave at least one for each part. A policy asks for
#: more.
MIN_PER_CLASS = 4
#: Shares of search and of search + calibration; the rest is hold-out.
SEARCH_END, CALIBRATION_END = 0.5, 0.7
MAX_NAME = 100


def curate(raw: RawSet, name: str, seed: int = 0) -> tuple[bytes, CleanSetFacts]:
    """Check `raw`, drop exact duplicates, and split it.

    Each class is split into search (50 %), calibration (20 %) and hold-out (30 %). Order, file
    names and source format do not matter: the same images, labels, names and seed give the same
    bytes. The split orders images by a hash keyed with the seed, so an image that is added later
    moves few others.

    Returns:
        The blob for `load`, and the facts that a policy may check; the blob's SHA-256 is the clean
        set's digest.

    Raises:
        CleanSetError: labels outside 0..K-1, a class without enough images, one image under two
            labels, bad names.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise refuse(
            "bad_names", f"A clean set's name must be 1 to {MAX_NAME} printable characters."
        )
    names = check_names(raw.class_names)
    keep = np.setdiff1d(np.arange(len(raw.labels)), duplicates(raw))
    counts = np.bincount(raw.labels[keep], minlength=len(names))
    if counts.min() < MIN_PER_CLASS:
        rarest = int(counts.argmin())
        raise refuse(
            "too_few",
            f"Class {names[rarest]} has {counts[rarest]} distinct image(s); every class needs "
            f"{MIN_PER_CLASS} or more.",
        )
    order = sorted(keep.tolist(), key=lambda index: _key(seed, raw.images[index]))
    images, labels = np.ascontiguousarray(raw.images[order]), raw.labels[order].astype(np.int64)
    data = write(images, labels, _split(labels, len(names)), name, names)
    return data, facts_of(data, name)


def duplicates(raw: RawSet) -> np.ndarray:
    """Positions (int64) of the images that equal an earlier one, pixel by pixel.

    `curate` leaves them out.

    Raises:
        CleanSetError: two equal images have different labels, so one of the labels is wrong; or a
            label names no class.
    """
    _check_arrays(raw)
    _check_labels(raw)
    first: dict[bytes, int] = {}
    repeated = []
    for index, image in enumerate(raw.images):
        earlier = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
        if earlier == index:
            continue
        if raw.labels[earlier] != raw.labels[index]:
            one, other = (raw.class_names[raw.labels[place]] for place in (earlier, index))
            raise refuse(
                "label_conflict",
                f"{raw.source(earlier)} and {raw.source(index)} are the same image, but one is "
                f"labelled {one} and the other {other}; remove the wrong one.",
            )
        repeated.append(index)
    return np.array(repeated, np.int64)


def _check_arrays(raw: RawSet) -> None:
    if raw.images.dtype != np.uint8 or raw.images.ndim != 4:
        raise refuse(
            "bad_images",
            f"Images must be uint8 N,C,H,W; these are {raw.images.dtype} {raw.images.shape}.",
        )
    check_size(len(raw.images), raw.images[0].size if len(raw.images) else 0)
    if raw.labels.shape != (len(raw.images),) or raw.labels.dtype.kind not in "iu":
        raise refuse(
            "bad_labels",
            f"Each image needs one integer label; the labels have the shape {raw.labels.shape}.",
        )


def _check_labels(raw: RawSet) -> None:
    classes = len(raw.class_names)
    wrong = np.flatnonzero((raw.labels < 0) | (raw.labels >= classes))
    if len(wrong):
        place = int(wrong[0])
        raise refuse(
            "bad_labels",
            f"{raw.source(place)} has the label {raw.labels[place]}, but there are {classes} "
            f"classes; labels run from 0 to {classes - 1}.",
        )
    missing = np.setdiff1d(np.arange(classes), raw.labels)
    if len(missing):
        raise refuse(
            "missing_class", f"Class {raw.class_names[missing[0]]} has no images; add some."
        )


def _key(seed: int, image: np.ndarray) -> bytes:
    return hashlib.sha256(f"registry-guard split {seed}\n".encode() + image.tobytes()).digest()


def _split(labels: np.ndarray, classes: int) -> np.ndarray:
    """The part of each image: 0 search, 1 calibration, 2 hold-out, in the order of its class."""
    codes = np.full(len(labels), 2, np.uint8)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        first, second = round(len(own) * SEARCH_END), round(len(own) * CALIBRATION_END)
        codes[own[:second]] = 1
        codes[own[:first]] = 0
    return codes
