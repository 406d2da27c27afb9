"""A NumPy archive with the arrays `images` and `labels`; nothing in it is ever unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from guard.cleansets._raw import MAX_PIXEL_BYTES, RawSet, as_labels, check_size, numbered, refuse

#: Deflate cannot exceed about 1032:1, and images stay far below; a higher ratio is meant to fill
#: memory.
MAX_RATIO = 200
#: Members smaller than this may have any ratio.
_SMALL = 1 << 20
MAX_CHANNELS = 4
_MEMBERS = {"images.npy", "labels.npy", "class_names.npy"}
_WANTED = {
    "images": "it must be uint8 of the stated shape",
    "labels": "it must hold integers",
    "class_names": "it must hold text",
}


def claims(path: Path) -> bool:
    """Whether this reader accepts `path`."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path: Path) -> RawSet:
    """Read the arrays of a NumPy archive.

    They are `images` (uint8; N,C,H,W, N,H,W,C or N,H,W), `labels` (integers; N or N,1) and,
    optionally, `class_names` (text).

    Raises:
        CleanSetError: not such an archive, an array of another type or shape, or larger than the
            limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if (
                len(members) != len(archive.infolist())
                or not {"images.npy", "labels.npy"} <= set(members) <= _MEMBERS
            ):
                raise refuse(
                    "bad_archive",
                    f"{path.name} must hold the arrays images, labels and, if you like, "
                    "class_names; nothing else.",
                )
            images = _array(archive, members["images.npy"], "u")
            labels = _array(archive, members["labels.npy"], "iu")
            names = (
                _array(archive, members["class_names.npy"], "U")
                if "class_names.npy" in members
                else None
            )
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError) as error:
        raise refuse(
            "bad_archive",
            f"{path.name} is not a readable NumPy archive ({type(error).__name__}).",
        ) from error
    images = _channels_first(images)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise refuse(
            "bad_labels", f"{path.name}: {labels.shape} labels do not fit {len(images)} images."
        )
    labels = as_labels(labels, path.name)
    return RawSet(
        images,
        labels,
        numbered(labels) if names is None else tuple(map(str, names.ravel().tolist())),
    )


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """One member, whose sizes are compared with the limits before anything is unpacked."""
    name = info.filename.removesuffix(".npy")
    if info.file_size > MAX_PIXEL_BYTES:
        raise refuse(
            "too_large", f"The array {name} has {info.file_size:,} bytes; take a sample of the set."
        )
    if info.file_size > _SMALL and info.file_size > MAX_RATIO * max(1, info.compress_size):
        raise refuse(
            "too_large",
            f"The array {name} unpacks to over {MAX_RATIO} times its size; save it uncompressed.",
        )
    try:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = header(stream)
        size = dtype.itemsize
        for side in shape:
            size *= side
        if (
            dtype.kind not in kinds
            or (name == "images" and dtype != np.uint8)
            or size > info.file_size
        ):
            raise refuse(
                "bad_archive",
                f"The array {name} has the type {dtype} and shape {shape}; {_WANTED[name]}.",
            )
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, KeyError, EOFError) as error:
        raise refuse(
            "bad_archive", f"The array {name} is not in NumPy's format; save it with numpy.savez."
        ) from error


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise refuse(
            "bad_archive",
            f"The array images has the shape {images.shape}; give N,C,H,W or N,H,W,C or N,H,W.",
        )
    check_size(len(images), images[0].size if len(images) else 0)
    first, last = images.shape[1] <= MAX_CHANNELS, images.shape[3] <= MAX_CHANNELS
    if first == last:
        raise refuse(
            "bad_archive",
            f"The array images has the shape {images.shape}, where the channel axis is unclear; "
            "give N,C,H,W with C up to 4.",
        )
    return np.ascontiguousarray(images if first else images.transpose(0, 3, 1, 2))
