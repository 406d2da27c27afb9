"""A folder with one sub-folder of image files for each class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from guard.cleansets._decode import MAX_ENCODED_BYTES, decode
from guard.cleansets._raw import MAX_IMAGES, RawSet, order_names, refuse, stack

#: What file managers leave behind.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def claims(path: Path) -> bool:
    """Whether this reader accepts `path`."""
    return path.is_dir()


def read(path: Path) -> RawSet:
    """Read `path`/<class>/<image>.

    A class has the name of its folder, and classes are in the order of their names.

    Raises:
        CleanSetError: a file is not an image or lies outside the class folders, or a class folder
            is empty.
    """
    folders = {}
    for entry in _visible(path):
        if not entry.is_dir():
            raise refuse(
                "bad_folder",
                f"{entry.name} lies beside the class folders; make one sub-folder of images per "
                "class.",
            )
        folders[entry.name] = entry
    if not folders:
        raise refuse(
            "empty", f"The folder {path.name} is empty; make one sub-folder of images per class."
        )
    names = order_names(folders)
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        own = _files(folders[name])
        if not own:
            raise refuse(
                "missing_class",
                f"The class folder {name} holds no images; add some or remove the folder.",
            )
        files += [(file, label) for file in own]
        if len(files) > MAX_IMAGES:
            raise refuse(
                "too_large",
                f"The folder {path.name} has over {MAX_IMAGES:,} images; take a sample of it.",
            )
    images, sources = stack(_decoded(file for file, _ in files), len(files))
    return RawSet(images, np.array([label for _, label in files], np.int64), names, sources)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or left by a file manager."""
    return name.startswith(".") or name.lower() in _LITTER


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not is_litter(entry.name))


def _files(folder: Path) -> list[Path]:
    own = _visible(folder)
    for entry in own:
        if not entry.is_file():
            raise refuse(
                "bad_folder",
                f"{folder.name}/{entry.name} is not a file; class folders hold images only.",
            )
    return own


def _decoded(files: Iterator[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        source = f"{file.parent.name}/{file.name}"
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_ENCODED_BYTES + 1)
        except OSError as error:
            raise refuse(
                "unreadable_image", f"{source} cannot be read ({error.strerror})."
            ) from error
        yield source, decode(data, source)
