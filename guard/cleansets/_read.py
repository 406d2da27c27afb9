"""Which reader reads a path. A reader is a file with `claims` and `read`."""

from pathlib import Path

from guard.cleansets import _image_folder, _npz, _parquet
from guard.cleansets._raw import RawSet, refuse

READERS = (_image_folder, _npz, _parquet)


def read_source(path: Path) -> RawSet:
    """Read labelled pictures from an image folder (a sub-folder a class).

    A `.parquet` or an `.npz`.

    Raises:
        CleanSetError: there is nothing at `path`, no reader knows it, or its reader's rules are
            broken.
    """
    if not path.exists():
        raise refuse(
            "not_found", f"There is nothing at {path}; give a folder, a .parquet or an .npz."
        )
    for reader in READERS:
        if reader.claims(path):
            return reader.read(path)
    raise refuse(
        "unknown_source",
        f"{path.name} is no clean set; give a folder of class folders, a .parquet or an .npz.",
    )
