"""Which training images are also in the clean set, exactly or nearly.

An image's signature has a bit for each cell of 8x8 mean-pooled grey values: whether the cell is
brighter than their mean. A re-encoded copy differs in few bits, and those are of cells near the
mean; so each clean image is entered under all settings of its eight least certain bits, and a
training image is looked up once. Time grows with the number of images, not with its square.

What a look-up finds is compared pixel by pixel, so equal signatures alone count nothing. Copies
that were cropped, mirrored, recoloured or stamped are not found.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from guard.trainsets._set import TrainingSet
from guard.trainsets._source import refuse

CELLS = 8
_UNCERTAIN = 8
#: Two images are one if the root mean square difference of their grey values is at most this share
#: of the contrast (standard deviation) of the clean one. Measured on Fashion-MNIST: re-encoding as
#: JPEG of quality 95, 85 and 75 leaves up to 3, 9 and 14 % (in 19 of 20 images), and of 3 million
#: pairs of different images the nearest differ by 16 %.
SHARE = 0.10
#: The same for all channels, of which JPEG keeps less; two colours of one drawing differ by more.
COLOUR_SHARE = 0.20
#: The least difference that counts, in 0..255: below, images without contrast are alike.
FLOOR = 0.5
#: Clean images with one signature that a training image is compared with.
_MOST = 8
_BATCH = 1024


@dataclass(frozen=True)
class Overlap:
    """What two sets share.

    Attributes:
        train: bool N, the training images that are in the clean set, too.
        clean: bool M, the clean images that are in the training set, too.
        exact: the training images that are, pixel by pixel.
    """

    train: np.ndarray
    clean: np.ndarray
    exact: int


def overlap(train: TrainingSet, clean: np.ndarray) -> Overlap:
    """Compare a training set with clean images (uint8 M,C,H,W), in one pass over the set.

    A different image counts as the same only if its pixels differ by less than a good JPEG changes
    them: such images exist in sets of nearly constant images, hardly among photographs.

    Raises:
        TrainingSetError: the clean images have another size.
    """
    facts = train.facts
    shape = (facts.channels, facts.height, facts.width)
    if clean.shape[1:] != shape:
        raise refuse(
            "wrong_size",
            f"The clean images are {clean.shape[1:]}, those of the training set {shape}; compare "
            "sets of one size.",
        )
    table = _Table(clean)
    found = Overlap(np.zeros(len(train), bool), np.zeros(len(clean), bool), 0)
    exact = 0
    for batch in train.batches(_BATCH):
        places, others, same = table.find(batch.images)
        found.train[batch.index[places]] = True
        found.clean[others] = True
        exact += same
    return replace(found, exact=exact)


def with_overlap(train: TrainingSet, found: Overlap) -> TrainingSet:
    """The set, with the overlap in its facts."""
    return replace(train, facts=replace(train.facts, overlap=int(found.train.sum())))


class _Table:
    """Clean images by digest and by signature."""

    def __init__(self, clean: np.ndarray) -> None:
        self.clean = clean
        self.digests: dict[bytes, list[int]] = {}
        for place, image in enumerate(clean):
            self.digests.setdefault(_digest(image), []).append(place)
        pooled = np.concatenate(
            [_pooled(clean[start : start + _BATCH]) for start in range(0, len(clean), _BATCH)]
        )
        keys = _settings(pooled)
        flat, owner = keys.ravel(), np.repeat(np.arange(len(clean)), keys.shape[1])
        order = np.argsort(flat, kind="stable")
        self.keys, self.owner = flat[order], owner[order]

    def find(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Places in the batch, clean images, and how many places are there exactly."""
        exact = [
            (place, other)
            for place, image in enumerate(images)
            for other in self.digests.get(_digest(image), ())
        ]
        signatures = _bits(_pooled(images))
        first = np.searchsorted(self.keys, signatures, "left")
        last = np.minimum(np.searchsorted(self.keys, signatures, "right"), first + _MOST)
        counts = last - first
        places = np.repeat(np.arange(len(images)), counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        others = self.owner[np.repeat(first, counts) + offsets]
        near = _alike(images, self.clean, places, others)
        mine = np.array([place for place, _ in exact], np.int64)
        theirs = np.array([other for _, other in exact], np.int64)
        return (
            np.concatenate([mine, places[near]]),
            np.concatenate([theirs, others[near]]),
            len(set(mine.tolist())),
        )


def _alike(
    images: np.ndarray, clean: np.ndarray, places: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Which pairs are one image, bool n."""
    near = np.zeros(len(places), bool)
    for start in range(0, len(places), _BATCH):
        part = slice(start, start + _BATCH)
        wanted, found = (
            some.astype(np.float32) for some in (clean[others[part]], images[places[part]])
        )
        grey = _within(found.mean(1), wanted.mean(1), SHARE)
        near[part] = grey & _within(found, wanted, COLOUR_SHARE)
    return near


def _within(found: np.ndarray, wanted: np.ndarray, share: float) -> np.ndarray:
    axes = tuple(range(1, found.ndim))
    difference = np.sqrt(np.square(found - wanted).mean(axes))
    near: np.ndarray = difference <= np.maximum(share * wanted.std(axes), FLOOR)
    return near


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()[:16]


def _pooled(images: np.ndarray) -> np.ndarray:
    """Mean-pooled grey values, float32 n,64, of images uint8 n,C,H,W."""
    grey = images.astype(np.float32).mean(1)
    rows, columns = _weights(grey.shape[1]), _weights(grey.shape[2])
    cells: np.ndarray = rows @ (grey @ columns.T)
    return cells.reshape(len(images), -1)


def _weights(side: int) -> np.ndarray:
    """The share of each of `side` pixels in each of the 8 cells, float32 8,side."""
    edges = np.linspace(0, side, CELLS + 1)
    low = np.maximum(edges[:-1, None], np.arange(side))
    high = np.minimum(edges[1:, None], np.arange(side) + 1)
    shares = np.clip(high - low, 0, None)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def _bits(pooled: np.ndarray) -> np.ndarray:
    """The signatures, uint64 n."""
    return _packed(pooled > pooled.mean(1, keepdims=True))


def _packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits, axis=-1).view(">u8")[..., 0].astype(np.uint64)


def _settings(pooled: np.ndarray) -> np.ndarray:
    """Each image's signature with its least certain bits set in every way, uint64 n,256."""
    distance = np.abs(pooled - pooled.mean(1, keepdims=True))
    cells = np.argsort(distance, axis=1, kind="stable")[:, :_UNCERTAIN]
    single = np.zeros((*cells.shape, CELLS * CELLS), bool)
    np.put_along_axis(single, cells[..., None], values=True, axis=2)
    masks = _packed(single)
    keys = _bits(pooled)[:, None]
    for column in range(_UNCERTAIN):
        keys = np.concatenate([keys, keys ^ masks[:, column : column + 1]], axis=1)
    return keys
