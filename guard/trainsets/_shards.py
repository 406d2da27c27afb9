"""A folder of Parquet files or NumPy archives that together are one training set."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from guard.cleansets.reading import is_litter
from guard.core.errors import TrainingSetError
from guard.trainsets._npz import NpzFile
from guard.trainsets._parquet import ParquetFile
from guard.trainsets._source import MAX_LISTED, Item, Source, Watch, refuse

KINDS: Mapping[str, Callable[[Path, str], Source]] = {".parquet": ParquetFile, ".npz": NpzFile}
#: What lies beside the shards of published data sets.
_BESIDE = frozenset({".md", ".json", ".txt", ".yaml", ".yml"})
_DEPTH = 3
_MAX_SHARDS = 100_000


class Shards:
    """The images of all shards, in the order of the shards' paths.

    Raises:
        TrainingSetError: a shard is no such file, they are of two kinds, name the classes
            differently, or hold too many images together.
    """

    def __init__(self, root: Path, paths: list[Path]) -> None:
        if len({path.suffix.lower() for path in paths}) > 1:
            raise refuse(
                "bad_folder",
                f"{root.name} holds Parquet files beside NumPy archives; name the folder of one "
                "kind.",
            )
        single = len(paths) == 1 and paths[0] == root
        self.watch = Watch(paths)
        self.shards = [
            KINDS[path.suffix.lower()](path, "" if single else path.relative_to(root).as_posix())
            for path in paths
        ]
        self.total = sum(shard.total for shard in self.shards)
        if self.total > MAX_LISTED:
            raise refuse(
                "too_large",
                f"{root.name} has {self.total:,} images; the limit is {MAX_LISTED:,}, so take a "
                "sample of it.",
            )
        kinds = {shard.names for shard in self.shards}
        if len(kinds) > 1:
            raise refuse(
                "bad_names",
                f"The files in {root.name} name the classes differently; write them alike.",
            )
        self.names = kinds.pop()

    def items(self, keep: np.ndarray | None) -> Iterator[Item]:
        """As `Source.items`."""
        start = 0
        for shard in self.shards:
            end = start + shard.total
            try:
                yield from shard.items(None if keep is None else keep[start:end])
            except TrainingSetError:
                self.watch.check()  # what changed meanwhile often looks damaged
                raise
            start = end
        self.watch.check()


def shard_files(folder: Path) -> list[Path]:
    """The shards below a folder, sorted; empty where it holds none.

    Raises:
        TrainingSetError: other files lie beside them, or they are too many.
    """
    found, other = [], None
    for path in _below(folder, _DEPTH):
        if path.suffix.lower() in KINDS:
            found.append(path)
        elif path.suffix.lower() not in _BESIDE:
            other = other or path
        if not found and other is not None:
            return []  # an image folder, whose files need not be walked through
        if len(found) > _MAX_SHARDS:
            raise refuse("too_large", f"{folder.name} holds over {_MAX_SHARDS:,} files; join some.")
    if found and other is not None:
        raise refuse(
            "bad_folder",
            f"{other.name} lies beside Parquet files or NumPy archives; a training set is these "
            "or an image folder.",
        )
    return sorted(found)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Files first, so that a glance at the top shows what kind of folder it is."""
    entries = sorted(entry for entry in folder.iterdir() if not is_litter(entry.name))
    yield from (entry for entry in entries if not entry.is_dir())
    if depth > 1:
        for entry in entries:
            if entry.is_dir():
                yield from _below(entry, depth - 1)
