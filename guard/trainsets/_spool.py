"""A decoded training set as plain files: written in one pass, read by ranges of rows.

Files are read rather than mapped: pages of a memory map count as this process's memory, and a job
has a limit on that.
"""

import json
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from guard.core.plain import from_plain, to_plain
from guard.core.trainset import TrainingSetFacts
from guard.trainsets._set import TrainingSet
from guard.trainsets._source import refuse

IMAGES, LABELS, HASHES = "images.u8", "labels.i64", "hashes.b16"
NAMES, STARTS = "names.txt", "names.i64"
#: Written last, so that a folder without it is not a training set.
FACTS = "facts.json"
FILES = (IMAGES, LABELS, HASHES, NAMES, STARTS, FACTS)
HASH_BYTES = 16
LAYOUT = 1
_PENDING = 4 << 20  # bytes of pixels that are collected before they are written


class SpoolWriter:
    """Writes rows one after another; `with` removes everything again if the block raises.

    Args:
        folder: an existing folder, private to this training set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self._files: dict[str, BinaryIO] = {}
        self._name_bytes = 0
        self._pending: dict[str, list[bytes]] = {}
        self._pending_bytes = 0

    def __enter__(self) -> Self:
        remove(self.folder)
        for name in (IMAGES, HASHES, NAMES, STARTS):
            self._files[name] = (self.folder / name).open("xb")
            self._pending[name] = []
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None:
            remove(self.folder)

    def add(self, pixels: bytes, digest: bytes, source: str) -> None:
        """One more row: its pixels C,H,W, the first 16 bytes of their SHA-256, and its name."""
        name = source.encode("utf-8", "surrogateescape")
        for file, data in (
            (IMAGES, pixels),
            (HASHES, digest),
            (NAMES, name),
            (STARTS, self._name_bytes.to_bytes(8, "little")),
        ):
            self._pending[file].append(data)
        self._name_bytes += len(name)
        self.count += 1
        self._pending_bytes += len(pixels)
        if self._pending_bytes >= _PENDING:
            self._flush()

    def finish(self, labels: np.ndarray, facts: TrainingSetFacts) -> None:
        """Write the labels (int64 N) and, last of all, the facts."""
        self._pending[STARTS].append(self._name_bytes.to_bytes(8, "little"))
        self._flush()
        for file in self._files.values():
            file.close()
        (self.folder / LABELS).write_bytes(labels.astype("<i8").tobytes())
        partial = self.folder / "facts.partial"
        partial.write_text(json.dumps({"layout": LAYOUT, **to_plain(facts)}), encoding="utf-8")
        partial.rename(self.folder / FACTS)

    def hashes(self) -> np.ndarray:
        """What was written of the hashes so far, big-endian uint64 N,2."""
        self._flush()
        self._files[HASHES].flush()
        return hashes_in(self.folder)

    def _flush(self) -> None:
        for name, parts in self._pending.items():
            self._files[name].write(b"".join(parts))
            parts.clear()
        self._pending_bytes = 0


def remove(folder: Path) -> None:
    """Delete the files of a training set, whole or not; the folder stays."""
    for name in (*FILES, "facts.partial"):
        (folder / name).unlink(missing_ok=True)


def hashes_in(folder: Path) -> np.ndarray:
    """The hashes of all images, big-endian uint64 N,2."""
    return np.fromfile(folder / HASHES, ">u8").reshape(-1, 2)


@dataclass(frozen=True)
class Spool:
    """The rows and names in a folder; opens the files for each call, so that it can be copied."""

    folder: Path
    shape: tuple[int, int, int]
    count: int

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Images uint8 n,C,H,W for places int64 n, in the order of the places.

        Neighbours are read at once; places without an order are read in the order of the file.

        Raises:
            IndexError: a place is outside the set.
        """
        wanted = np.asarray(places, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.count):
            raise IndexError(f"places must be in 0..{self.count - 1}")
        size = int(np.prod(self.shape))
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        read = np.empty((len(wanted), size), np.uint8)
        breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
        edges = [0, *breaks.tolist(), len(wanted)] if len(wanted) else []
        with (self.folder / IMAGES).open("rb", buffering=0) as file:
            for start, end in pairwise(edges):
                _fill(file.fileno(), read[start:end], int(ordered[start]) * size)
        if not np.array_equal(ordered, wanted):
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            read = read[back]
        return read.reshape(-1, *self.shape)

    def name_of(self, place: int) -> str:
        """What image `place` is called where the set lies.

        Raises:
            IndexError: the place is outside the set.
        """
        if not 0 <= place < self.count:
            raise IndexError(f"the place must be in 0..{self.count - 1}")
        with (self.folder / STARTS).open("rb", buffering=0) as file:
            edges = os.pread(file.fileno(), 16, 8 * place)
        start, end = int.from_bytes(edges[:8], "little"), int.from_bytes(edges[8:], "little")
        with (self.folder / NAMES).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), end - start, start).decode("utf-8", "replace")


def _fill(file: int, rows: np.ndarray, offset: int) -> None:
    view = memoryview(rows.reshape(-1).data)
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], offset + done)
        if count == 0:
            raise _damaged()
        done += count


def open_spool(folder: Path) -> TrainingSet:
    """The training set that `read` wrote to a folder.

    Raises:
        TrainingSetError: there is none, or its files do not fit each other.
    """
    try:
        plain = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        facts = from_plain(TrainingSetFacts, plain)
        labels = np.fromfile(folder / LABELS, "<i8").astype(np.int64, copy=False)
        sizes = {name: (folder / name).stat().st_size for name in (IMAGES, HASHES, STARTS)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged() from error
    shape = (facts.channels, facts.height, facts.width)
    wanted = {
        IMAGES: facts.images * int(np.prod(shape)),
        HASHES: facts.images * HASH_BYTES,
        STARTS: 8 * (facts.images + 1),
    }
    if plain["layout"] != LAYOUT or sizes != wanted or len(labels) != facts.images:
        raise _damaged()
    spool = Spool(folder, shape, facts.images)
    return TrainingSet(facts, labels, spool.rows, spool.name_of)


def _damaged() -> Exception:
    return refuse("bad_spool", "The decoded training set on this disk is damaged; read it again.")
