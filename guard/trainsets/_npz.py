"""One NumPy archive with the arrays `images` and `labels`; nothing in it is ever unpickled."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from guard.cleansets import reading
from guard.core.errors import CleanSetError
from guard.trainsets._source import MAX_LISTED, Item, refuse, unreadable

_CHUNK = 4 << 20  # bytes of pixels in memory at a time
_LIMIT = 1 << 50  # nothing of the images is unpacked at once
_LABELS = 8 * MAX_LISTED


class NpzFile:
    """The images (uint8; N,C,H,W, N,H,W,C or N,H,W) and labels (integers) of one archive.

    Raises:
        TrainingSetError: it is no such archive, or unpacks to far more than its size.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        try:
            with zipfile.ZipFile(path) as archive:
                members = reading.members_of(archive, path.name)
                with reading.opened(archive, members["images.npy"], "u", _LIMIT) as found:
                    self._axis = reading.channel_axis(found.shape)
                    self._shape, fortran = found.shape, found.fortran
                labels, self.names = reading.labels_in(archive, members, _LABELS)
                self.total = self._shape[0]
                self._labels = reading.fitting(labels, self.total, path.name)
        except CleanSetError as error:
            raise _translated(error) from error
        except reading.UNREADABLE as error:
            raise unreadable(path.name, error) from error
        if fortran:
            raise refuse(
                "bad_archive",
                f"The images of {path.name} are in Fortran order; save numpy.ascontiguousarray "
                "of them.",
            )

    def items(self, keep: np.ndarray | None) -> Iterator[Item]:
        """As `Source.items`."""
        row = int(np.prod(self._shape[1:], dtype=np.int64))
        for start, chunk in self._chunks(row):
            for place, image in enumerate(self._channels_first(chunk), start):
                if keep is None or keep[place]:
                    source = f"{self.name} image {place}".strip()
                    yield Item(source, row, int(self._labels[place]), image)

    def _chunks(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """The images as they lie in the file, some at a time, each with the place of its first."""
        rows = max(1, _CHUNK // max(1, row))
        try:
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo("images.npy")
                with reading.opened(archive, info, "u", _LIMIT) as found:
                    for start in range(0, self.total, rows):
                        count = min(rows, self.total - start)
                        data = found.stream.read(count * row)
                        if len(data) != count * row:
                            raise EOFError
                        yield start, np.frombuffer(data, np.uint8).reshape(-1, *self._shape[1:])
                    found.stream.read()  # to the end, where the checksum is compared
        except CleanSetError as error:
            raise _translated(error) from error
        except (*reading.UNREADABLE, EOFError, KeyError) as error:
            raise unreadable(self.path.name, error) from error

    def _channels_first(self, images: np.ndarray) -> np.ndarray:
        if self._axis is None:
            return images[:, None]
        return images if self._axis == 1 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _translated(error: CleanSetError) -> Exception:
    if error.code == "cleanset_too_large":
        return refuse("bomb", error.sentence)
    if error.code == "cleanset_bad_labels":
        return refuse("bad_labels", error.sentence)
    return refuse("bad_archive", error.sentence)
