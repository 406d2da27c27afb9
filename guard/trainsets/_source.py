"""What every reader of a training set gives, the limits it keeps, and how it refuses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from guard.core.errors import TrainingSetError

#: Images that are read where the caller does not say; of a larger set a sample is taken.
MAX_IMAGES = 1_000_000
#: Images that may be listed, since a listing of one costs about 100 bytes of memory.
MAX_LISTED = 20_000_000


def refuse(code: str, sentence: str) -> TrainingSetError:
    """The error for a broken rule that `code` names."""
    return TrainingSetError(sentence, code=f"trainset_{code}")


@dataclass(frozen=True)
class Item:
    """One image as a reader finds it, not decoded.

    Attributes:
        source: its name where the set lies.
        size: the bytes it has there.
        label: a class number, or a class's name.
        data: an encoded image, or pixels uint8 C,H,W; None where there is nothing to read.
        fault: why there is nothing; empty otherwise.
    """

    source: str
    size: int
    label: int | str
    data: bytes | np.ndarray | None
    fault: str = ""


class Source(Protocol):
    """A listed training set, whose images can be read in the order of the listing."""

    total: int
    names: tuple[str, ...] | None  # of classes that are numbers; None where nothing names them

    def items(self, keep: np.ndarray | None) -> Iterator[Item]:
        """The images in the order of the listing; `keep`, bool N, says which; None for all.

        Raises:
            TrainingSetError: the set is damaged as a whole, or changed meanwhile.
        """


def odd_size(source: str, shape: Sequence[int], other: Sequence[int]) -> str:
    """Why an image of a shape C,H,W is of no use beside those of another."""
    found, wanted = _size(shape), _size(other)
    return f"{source} is {found}, not {wanted}; bring all images to the model's input size."


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{width}x{height} {colour}"


def unreadable(name: str, error: Exception) -> TrainingSetError:
    """The error for a file that the system, or its own reader, does not open."""
    return refuse("unreadable", f"{name} cannot be read ({type(error).__name__}); write it again.")


def changed(name: str) -> TrainingSetError:
    """The error for a set that is not what was listed any more."""
    return refuse(
        "changed", f"{name} changed while the training set was read; read it again once it is done."
    )


class Watch:
    """Remembers files and folders, to notice that one changed meanwhile."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._before = {path: _state(path) for path in paths}

    def check(self) -> None:
        """Raises TrainingSetError where one changed or is gone."""
        for path, before in self._before.items():
            if _state(path) != before:
                raise changed(path.name)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
