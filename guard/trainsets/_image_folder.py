"""A folder with one sub-folder of image files for each class."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from guard.cleansets.reading import MAX_ENCODED_BYTES, is_litter
from guard.trainsets._source import (
    MAX_LISTED,
    Item,
    Watch,
    changed,
    refuse,
)


class ImageFolder:
    """The images `path`/<class>/<file>, in the order of these names as text.

    Raises:
        TrainingSetError: something lies outside the class folders, a class folder holds other
            things than files or is empty, or there are too many images.
    """

    names: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, list[str]] = {}
        self.total = 0
        folders = _listed(path)
        self.watch = Watch([path, *(path / entry.name for entry in folders)])
        for entry in folders:
            if not entry.is_dir():
                raise refuse(
                    "bad_folder",
                    f"{entry.name} lies beside the class folders; make one sub-folder of images "
                    "per class.",
                )
            self.files[entry.name] = _files(path / entry.name)
            self.total += len(self.files[entry.name])
            if self.total > MAX_LISTED:
                raise refuse(
                    "too_large", f"{path.name} has over {MAX_LISTED:,} images; take a sample of it."
                )

    def items(self, keep: np.ndarray | None) -> Iterator[Item]:
        """As `Source.items`."""
        for place, (folder, name) in enumerate(self._entries()):
            if keep is None or keep[place]:
                yield self._item(folder, name)
        self.watch.check()

    def _entries(self) -> Iterator[tuple[str, str]]:
        for folder, names in self.files.items():
            for name in names:
                yield folder, name

    def _item(self, folder: str, name: str) -> Item:
        source = f"{folder}/{name}"
        try:
            data, size = _bytes(self.path / folder / name, source)
        except OSError as error:
            return Item(source, 0, folder, None, f"{source} cannot be read ({error.strerror}).")
        return Item(source, size, folder, data)


def _listed(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not is_litter(entry.name)), key=lambda one: one.name
        )


def _files(folder: Path) -> list[str]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            if not entry.is_file():
                raise refuse(
                    "bad_folder",
                    f"{folder.name}/{entry.name} is not a file; class folders hold images only.",
                )
            names.append(entry.name)
    if not names:
        raise refuse(
            "missing_class",
            f"The class folder {folder.name} holds no images; add some or remove the folder.",
        )
    return sorted(names)


def _bytes(path: Path, source: str) -> tuple[bytes, int]:
    """The file's bytes, no more than an image may have, and its size."""
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read(MAX_ENCODED_BYTES + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise changed(source) from error
    whole = min(before.st_size, MAX_ENCODED_BYTES + 1)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
        len(data) != whole
    ):
        raise changed(source)
    return data, before.st_size
