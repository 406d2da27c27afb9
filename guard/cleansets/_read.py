"""Choose the reader of a path; a reader is a module with `claims` and `read`."""

from pathlib import Path

from guard.cleansets import _image_folder, _npz, _parquet
from guard.cleansets._raw import RawSet, refuse

READERS = (_image_folder, _npz, _parquet)


def read_source(path: Path) -> RawSet:
    """Read labelled images from a folder with a sub-folder per class, a `.parquet` or an `.npz`.

    Raises:
        CleanSetError: there is nothing at `path`, no reader accepts it, or a rule of its reader is
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
        f"{path.name} is not a clean set; give a folder of class folders, a .parquet or an .npz.",
    )
