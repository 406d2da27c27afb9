"""Read a training set once from where it lies, and leave it decoded in a folder of our own."""

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guard.cleansets.reading import decode, order_names
from guard.core.digests import json_digest
from guard.core.errors import CleanSetError
from guard.core.manifest import MAX_CLASSES
from guard.core.progress import Progress, silent
from guard.core.trainset import TrainingSetFacts
from guard.trainsets._image_folder import ImageFolder
from guard.trainsets._set import TrainingSet
from guard.trainsets._shards import KINDS, Shards, shard_files
from guard.trainsets._source import MAX_IMAGES, Item, Source, changed, odd_size, refuse, unreadable
from guard.trainsets._spool import HASH_BYTES, SpoolWriter, open_spool

#: The pixels of all images together, as they lie on the disk.
MAX_BYTES = 256 << 30
#: More broken images than both of these, and the set is refused.
MAX_FAULTS, MAX_FAULT_SHARE = 100, 0.01
MAX_NAME = 200
_SHOWN_FAULTS = 5
_REPORT = 1024  # images between two reports of progress


def read(
    path: Path,
    into: Path,
    *,
    uri: str = "",
    shape: tuple[int, int, int] | None = None,
    max_images: int = MAX_IMAGES,
    max_bytes: int = MAX_BYTES,
    progress: Progress = silent,
) -> TrainingSet:
    """Decode an image folder, a Parquet file or NumPy archive, or a folder of such files.

    One pass; memory does not grow with the images' bytes. A single broken image is counted and
    skipped. Of a set with more than `max_images` images a sample is taken, ordered by a hash keyed
    with all of the set's bytes, so that nobody can choose which images it leaves out. One image
    under two labels stays, and is counted.

    Args:
        into: an existing folder of the caller, which `open_spool` reads later.
        uri: what the facts call the set; empty for the path.
        shape: channels, height and width of the model's input; None takes those of the first image.
        max_bytes: the most bytes of pixels that may be written.

    Raises:
        TrainingSetError: it is no training set, is damaged, has too many broken images, images of
            another size or a class without images, or changed while it was read; `into` is empty
            again.
    """
    source = open_source(path)
    if source.total == 0:
        raise refuse("empty", f"{path.name} holds no images; name the set that taught the model.")
    sample = _drawn(source, max_images, progress) if source.total > max_images else None
    digest = _begun(source)
    with SpoolWriter(into) as spool:
        reading = _Pass(spool, min(source.total, max_images), max_bytes, shape)
        for item in source.items(None if sample is None else sample.keep):
            own = _digest(item.data)
            if sample is None:
                digest.update(_line(item, own))
            elif own[:8] != next(sample.digests):
                raise changed(item.source)
            reading.take(item, own)
            if reading.seen % _REPORT == 0:
                progress(reading.seen / reading.wanted, "reading the training set")
        origin = digest.hexdigest() if sample is None else sample.origin
        labels, names = reading.labelled(source.names)
        facts = reading.facts(uri or str(path), labels, names, source.total, origin)
        spool.finish(labels, facts)
    progress(1.0, "reading the training set")
    return open_spool(into)


def open_source(path: Path) -> Source:
    """List the training set at `path`.

    Raises:
        TrainingSetError: there is none, or its listing breaks a rule.
    """
    try:
        if path.is_dir():
            shards = shard_files(path)
            return Shards(path, shards) if shards else ImageFolder(path)
        if path.is_file() and path.suffix.lower() in KINDS:
            return Shards(path, [path])
    except OSError as error:
        raise unreadable(path.name, error) from error
    if not path.exists():
        raise refuse(
            "not_found",
            f"There is nothing at {path}; give an image folder, Parquet files or NumPy archives.",
        )
    raise refuse(
        "unknown_source",
        f"{path.name} is no training set; give an image folder, Parquet files or NumPy archives.",
    )


@dataclass(frozen=True)
class _Drawn:
    """A sample: which images are in it, the first 8 bytes of their digests, and that of all."""

    keep: np.ndarray
    digests: Iterator[bytes]
    origin: str


def _drawn(source: Source, count: int, progress: Progress) -> _Drawn:
    """Draw a sample by the digest of all images, which one pass over their bytes gives."""
    digest, starts = _begun(source), array("Q")
    for place, item in enumerate(source.items(None)):
        own = _digest(item.data)
        digest.update(_line(item, own))
        starts.append(int.from_bytes(own[:8], "big"))
        if place % _REPORT == 0:
            progress(0.0, "drawing a sample of the training set")
    keep = _sample(digest.hexdigest(), source.total, count)
    kept = (starts[place].to_bytes(8, "big") for place in np.flatnonzero(keep).tolist())
    return _Drawn(keep, kept, digest.hexdigest())


def _begun(source: Source) -> "hashlib._Hash":
    """The digest of all images, before the first: the names of the classes are part of it."""
    return hashlib.sha256(json.dumps(source.names).encode() + b"\n")


def _digest(data: bytes | np.ndarray | None) -> bytes:
    """The first 16 bytes of the SHA-256 of an image as it lies there."""
    raw = b"" if data is None else data if isinstance(data, bytes) else data.tobytes()
    return hashlib.sha256(raw).digest()[:HASH_BYTES]


def _line(item: Item, digest: bytes) -> bytes:
    line = json.dumps([item.source, item.size, digest.hex(), str(item.label)])
    return line.encode() + b"\n"


def _sample(salt: str, total: int, count: int) -> np.ndarray:
    """Which of `total` images are read, bool N: those with the `count` smallest keyed hashes."""
    # SplitMix64 of the place, started at the fingerprint: fast, and the same on every machine.
    with np.errstate(over="ignore"):
        mixed = np.arange(total, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += np.uint64(int(salt[:16], 16))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    keep = np.zeros(total, bool)
    keep[np.argpartition(mixed, count - 1)[:count]] = True
    return keep


class _Pass:
    """What one pass over the images gathers beside the rows themselves."""

    def __init__(
        self,
        spool: SpoolWriter,
        wanted: int,
        max_bytes: int,
        shape: tuple[int, int, int] | None,
    ) -> None:
        self.spool = spool
        self.wanted = wanted
        self.seen = 0
        self.shape = shape
        self._max_bytes = max_bytes
        self._labels = array("q")
        self._texts: dict[str, int] = {}
        self._numbers = False
        self._faults: list[str] = []
        self._skipped = self._odd = 0
        self._most = max(MAX_FAULTS, int(MAX_FAULT_SHARE * wanted))

    def take(self, item: Item, digest: bytes) -> None:
        """Spool one image, or count it as broken; `digest` is that of its bytes."""
        self.seen += 1
        if item.data is None:
            self._fault(item.fault)
            return
        image = item.data
        if isinstance(image, bytes):
            try:
                image = decode(image, item.source, self.shape[1:] if self.shape else None)
            except CleanSetError as error:
                self._fault(error.sentence, odd_size=error.code == "cleanset_mixed_sizes")
                return
            digest = _digest(image)
        if self.shape is not None and image.shape != self.shape:
            self._fault(odd_size(item.source, image.shape, self.shape), odd_size=True)
            return
        channels, height, width = image.shape
        self.shape = (channels, height, width)
        if not self._labels:
            self._check_room(image.size)
        self._labels.append(self._number(item))
        self.spool.add(image.tobytes(), digest, item.source)

    def _fault(self, sentence: str, *, odd_size: bool = False) -> None:
        self._skipped += 1
        self._odd += odd_size
        if len(self._faults) < _SHOWN_FAULTS:
            self._faults.append(sentence)
        if self._skipped > self._most:
            raise self._unusable()

    def _unusable(self) -> Exception:
        if 2 * self._odd > self._skipped:
            return refuse(
                "wrong_size",
                f"{self._odd} of the first {self.seen} images have another size or other channels "
                f"than the model or the first image. {self._faults[0]}",
            )
        return refuse(
            "broken",
            f"{self._skipped} of the first {self.seen} images cannot be used; at most 1 % or "
            f"{MAX_FAULTS} may be broken. {self._faults[0]}",
        )

    def _check_room(self, row: int) -> None:
        needed = row * self.wanted
        free = shutil.disk_usage(self.spool.folder).free
        if needed > min(self._max_bytes, free):
            raise refuse(
                "too_large",
                f"The training set has {needed / 2**30:.1f} GiB of pixels, and "
                f"{min(self._max_bytes, free) / 2**30:.1f} GiB may be written here; read fewer "
                "images, or make room.",
            )

    def _number(self, item: Item) -> int:
        """The label as a number; texts are numbered as they come, and put in order later."""
        if isinstance(item.label, str):
            number, wrong = self._texts.setdefault(item.label, len(self._texts)), self._numbers
        else:
            number, wrong = item.label, bool(self._texts)
            self._numbers = True
        if wrong or not 0 <= number < MAX_CLASSES:
            raise refuse(
                "bad_labels",
                f"{item.source} has the label {item.label!s:.100}; labels are numbers from 0 to "
                f"{MAX_CLASSES - 1}, or all are text.",
            )
        return number

    def labelled(self, named: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
        """The labels int64 N, and the names of the classes.

        Raises:
            TrainingSetError: no image can be used, a label has no name, or a class has no image.
        """
        if not self._labels:
            raise self._unusable()
        labels = np.array(self._labels, np.int64)
        if self._texts:
            try:
                names = order_names(self._texts)
            except CleanSetError as error:
                raise refuse("bad_names", error.sentence) from error
            place = {name: index for index, name in enumerate(names)}
            labels = np.array([place[name] for name in self._texts], np.int64)[labels]
        else:
            names = named or tuple(str(number) for number in range(int(labels.max()) + 1))
        if labels.max() >= len(names):
            raise refuse(
                "bad_labels",
                f"The set names {len(names)} classes, but a label is {labels.max()}; correct one.",
            )
        wrong = [name for name in names if not 0 < len(name) <= MAX_NAME or not name.isprintable()]
        if wrong or len(names) > MAX_CLASSES:
            raise refuse(
                "bad_names",
                f"A class is called {(wrong or names)[-1]!r:.100}; give up to {MAX_CLASSES:,} "
                f"classes names of 1 to {MAX_NAME} printable characters.",
            )
        missing = np.setdiff1d(np.arange(len(names)), labels)
        if len(missing):
            raise refuse(
                "missing_class",
                f"Class {names[missing[0]]:.100} has no images that can be used; name the whole "
                "set, with classes numbered from 0.",
            )
        return labels, names

    def facts(
        self, uri: str, labels: np.ndarray, names: tuple[str, ...], total: int, origin: str
    ) -> TrainingSetFacts:
        """The facts of what was read; `origin` is the digest of the whole set."""
        duplicates, conflicts = _repeated(self.spool.hashes(), labels)
        most = max(MAX_FAULTS, int(MAX_FAULT_SHARE * len(labels)))
        if conflicts > most:
            raise refuse(
                "conflicts",
                f"{conflicts} images have two labels in this set; at most {most} may, so correct "
                "the labels.",
            )
        channels, height, width = self.shape or (0, 0, 0)
        return TrainingSetFacts(
            uri=uri,
            digest=origin if self.seen == total else json_digest([origin, self.wanted]),
            images=len(labels),
            total=total,
            channels=channels,
            height=height,
            width=width,
            class_names=names,
            per_class=tuple(np.bincount(labels, minlength=len(names)).tolist()),
            skipped=self._skipped,
            duplicates=duplicates,
            conflicts=conflicts,
            faults=tuple(self._faults),
            origin=origin,
        )


def _repeated(hashes: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How many images equal an earlier one, and how many have another label elsewhere."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    sorted_hashes, sorted_labels = hashes[order], labels[order]
    new = np.ones(len(order), bool)
    new[1:] = (sorted_hashes[1:] != sorted_hashes[:-1]).any(1)
    starts = np.flatnonzero(new)
    low = np.minimum.reduceat(sorted_labels, starts)
    high = np.maximum.reduceat(sorted_labels, starts)
    sizes = np.diff(np.append(starts, len(order)))
    return int(len(order) - len(starts)), int(sizes[low != high].sum())
