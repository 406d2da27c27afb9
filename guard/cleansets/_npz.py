"""A NumPy archive with the arrays `images` and `labels`; nothing in it is ever unpickled."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from guard.cleansets._raw import MAX_PIXEL_BYTES, RawSet, as_labels, check_size, numbered, refuse
from guard.core.errors import CleanSetError

#: What reading a damaged archive raises.
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError)
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
            members = members_of(archive, path.name)
            images = _array(archive, members["images.npy"], "u")
            labels, names = labels_in(archive, members)
    except UNREADABLE as error:
        raise refuse(
            "bad_archive",
            f"{path.name} is not a readable NumPy archive ({type(error).__name__}).",
        ) from error
    images = _channels_first(images)
    labels = fitting(labels, len(images), path.name)
    return RawSet(images, labels, numbered(labels) if names is None else names)


def members_of(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The members of the archive called `name`, by their names.

    Raises:
        CleanSetError: others than the three arrays, or one twice.
    """
    members = {info.filename: info for info in archive.infolist()}
    if (
        len(members) != len(archive.infolist())
        or not {"images.npy", "labels.npy"} <= set(members) <= _MEMBERS
    ):
        raise refuse(
            "bad_archive",
            f"{name} must hold the arrays images, labels and, if you like, class_names; nothing "
            "else.",
        )
    return members


def labels_in(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    limit: int | None = None,
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The array of labels as it is, and the class names where there are some.

    Raises:
        CleanSetError: as `opened`.
    """
    labels = _array(archive, members["labels.npy"], "iu", limit)
    if "class_names.npy" not in members:
        return labels, None
    names = _array(archive, members["class_names.npy"], "U", limit)
    return labels, tuple(map(str, names.ravel().tolist()))


def fitting(labels: np.ndarray, count: int, name: str) -> np.ndarray:
    """The labels of `count` images as int64 N, of integers N or N,1.

    Raises:
        CleanSetError: there is not one an image, or one is no class.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise refuse("bad_labels", f"{name}: {labels.shape} labels do not fit {count} images.")
    return as_labels(labels, name)


@dataclass(frozen=True)
class Member:
    """An array in an archive; `stream` stands at its first value."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    stream: IO[bytes]


@contextmanager
def opened(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str, limit: int | None = None
) -> Iterator[Member]:
    """One member, whose sizes are compared with the limits before anything is unpacked.

    Args:
        kinds: the NumPy kinds that its values may have.
        limit: the most bytes that it may have unpacked; None for those of a clean set.

    Raises:
        CleanSetError: it is larger, unpacks to much more than its size, or is no such array.
    """
    name = info.filename.removesuffix(".npy")
    if info.file_size > (MAX_PIXEL_BYTES if limit is None else limit):
        raise refuse(
            "too_large", f"The array {name} has {info.file_size:,} bytes; take a sample of the set."
        )
    if info.file_size > _SMALL and info.file_size > MAX_RATIO * max(1, info.compress_size):
        raise refuse(
            "too_large",
            f"The array {name} unpacks to over {MAX_RATIO} times its size; save it uncompressed.",
        )
    with archive.open(info) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = header(stream)
        except (ValueError, KeyError, EOFError) as error:
            raise _no_numpy(name) from error
        if (
            dtype.kind not in kinds
            or (name == "images" and dtype != np.uint8)
            or math.prod(shape) * dtype.itemsize > info.file_size
        ):
            raise refuse(
                "bad_archive",
                f"The array {name} has the type {dtype} and shape {shape}; {_WANTED[name]}.",
            )
        yield Member(shape, fortran, dtype, stream)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Where the channels are in a shape of images: 1 or 3, None where there is no such axis.

    Raises:
        CleanSetError: the shape is no such, or the axis is unclear.
    """
    if len(shape) == 3:
        return None
    if len(shape) != 4:
        raise refuse(
            "bad_archive",
            f"The array images has the shape {shape}; give N,C,H,W or N,H,W,C or N,H,W.",
        )
    first, last = shape[1] <= MAX_CHANNELS, shape[3] <= MAX_CHANNELS
    if first == last:
        raise refuse(
            "bad_archive",
            f"The array images has the shape {shape}, where the channel axis is unclear; "
            "give N,C,H,W with C up to 4.",
        )
    return 1 if first else 3


def _array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str, limit: int | None = None
) -> np.ndarray:
    with opened(archive, info, kinds, limit):
        pass
    try:
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, KeyError, EOFError) as error:
        raise _no_numpy(info.filename.removesuffix(".npy")) from error


def _no_numpy(name: str) -> CleanSetError:
    return refuse(
        "bad_archive", f"The array {name} is not in NumPy's format; save it with numpy.savez."
    )


def _channels_first(images: np.ndarray) -> np.ndarray:
    axis = channel_axis(images.shape)
    check_size(len(images), images[0].size if len(images) else 0)
    if axis is None:
        return images[:, None]
    return np.ascontiguousarray(images if axis == 1 else images.transpose(0, 3, 1, 2))
