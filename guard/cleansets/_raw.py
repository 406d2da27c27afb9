"""What a reader hands over, the limits it keeps, and how pictures become one array."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from guard.core.errors import CleanSetError
from guard.core.manifest import MAX_CLASSES

#: Pictures in one set; ImageNet's training part has 1.3 million, and no clean set needs that.
MAX_IMAGES = 1_000_000
#: All decoded pixels together: a set is held in memory by every scan that uses it.
MAX_PIXEL_BYTES = 4 << 30


@dataclass(frozen=True)
class RawSet:
    """Labelled pictures as read, not yet checked.

    Images uint8 N,C,H,W, labels int64 N, a name for each class.

    `sources` names where each picture came from (a file, a row) so that an error can point at it;
    may be empty.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[str, ...] = ()

    def source(self, index: int) -> str:
        """What to call picture `index` in a sentence."""
        return self.sources[index] if self.sources else f"image {index}"


def refuse(code: str, sentence: str) -> CleanSetError:
    """The error of one broken rule; `code` names the rule."""
    return CleanSetError(sentence, code=f"cleanset_{code}")


def check_size(count: int, pixels: int) -> None:
    """Refuse a set before it is allocated.

    Args:
        count: pictures.
        pixels: bytes of one decoded picture.

    Raises:
        CleanSetError: nothing there, or more than the guard would hold in memory.
    """
    if count < 1 or pixels < 1:
        raise refuse("empty", "The clean set holds no images; give at least a few of each class.")
    if count > MAX_IMAGES:
        raise refuse(
            "too_large",
            f"The clean set has {count:,} images, the limit is {MAX_IMAGES:,}; take a sample.",
        )
    if count * pixels > MAX_PIXEL_BYTES:
        raise refuse(
            "too_large",
            f"The clean set is {count * pixels / 2**30:.1f} GiB of pixels, the limit is "
            f"{MAX_PIXEL_BYTES >> 30} GiB; "
            "take a sample of it.",
        )


def stack(
    pictures: Iterable[tuple[str, np.ndarray]], count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """`count` decoded pictures (source, uint8 C,H,W) as one array N,C,H,W, and their sources.

    Raises:
        CleanSetError: there are none, too many pixels, or one picture's size or channels differ
            from the first's.
    """
    images: np.ndarray | None = None
    sources: list[str] = []
    for index, (source, picture) in enumerate(pictures):
        if images is None:
            check_size(count, picture.size)
            images = np.empty((count, *picture.shape), np.uint8)
        if picture.shape != images.shape[1:]:
            raise refuse(
                "mixed_sizes",
                f"{source} is {_size(picture.shape)}, but {sources[0]} is "
                f"{_size(images.shape[1:])}; "
                "bring all images to the model's input size and to one colour mode.",
            )
        images[index] = picture
        sources.append(source)
    if images is None or len(sources) != count:
        raise refuse("empty", "The clean set holds no images; give at least a few of each class.")
    return images, tuple(sources)


def order_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in class order: sorted as numbers where all are integers, otherwise as text.

    Raises:
        CleanSetError: numbers that start at 0 or 1 leave a gap (a class is missing), or one number
            stands twice.
    """
    found = sorted(set(names))
    # Numbers sort as numbers: torchvision's ImageFolder would put "10" before "2", and labels would
    # move silently.
    if not found or not all(name.isascii() and name.isdigit() for name in found):
        return tuple(found)
    numbers = sorted((int(name), name) for name in found)
    values = [value for value, _ in numbers]
    if len(set(values)) != len(values):
        raise refuse(
            "bad_names", "Two classes have the same number (such as 1 and 01); rename one of them."
        )
    if values[0] <= 1 and values[-1] - values[0] + 1 != len(values):
        gap = next(value for value in range(values[0], values[-1]) if value not in values)
        raise refuse(
            "missing_class",
            f"There is no class {gap} between {values[0]} and {values[-1]}; add its images.",
        )
    return tuple(name for _, name in numbers)


def as_labels(values: Sequence[int] | np.ndarray, where: str) -> np.ndarray:
    """Integer labels as int64 N.

    Raises:
        CleanSetError: one is negative or beyond any number of classes.
    """
    low, high = int(min(values)), int(max(values))
    if low < 0 or high >= MAX_CLASSES:
        raise refuse(
            "bad_labels", f"{where}: labels run from {low} to {high}; number the classes from 0."
        )
    return np.asarray(values).astype(np.int64)


def numbered(labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    return tuple(str(index) for index in range(int(labels.max()) + 1))


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names that can be shown: unique, printable, 1 to 200 characters.

    Raises:
        CleanSetError: one is not.
    """
    checked = tuple(names)
    if len(checked) < 2 or len(checked) > MAX_CLASSES:
        raise refuse(
            "bad_names",
            f"The clean set names {len(checked)} class(es); it needs 2 to {MAX_CLASSES:,}.",
        )
    for name in checked:
        if not 0 < len(name) <= 200 or not name.isprintable():
            raise refuse(
                "bad_names",
                f"The class name {name!r:.100} is not 1 to 200 printable characters; rename it.",
            )
    if len(set(checked)) != len(checked):
        raise refuse("bad_names", "Two classes have the same name; give each its own.")
    return checked


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{width}x{height} {colour}"
