"""Progress of long work: the callback, and how one step fills its part of it."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called often by long work; raises `Cancelled` or `OutOfTime` when the work must stop."""

    def __call__(self, done: float, note: str = "") -> None:
        """`done` in 0..1."""


def silent(done: float, note: str = "") -> None:
    """A progress that nobody watches."""


def span(progress: Progress, start: float, end: float, note: str) -> Callable[[float], None]:
    """The progress of one step, which fills the part from `start` to `end` (0..1) of the whole."""
    return lambda done: progress(start + (end - start) * done, note)


def part(progress: Progress, start: float, end: float, label: str = "") -> Progress:
    """As `span`, for a step that has notes of its own; `label` precedes them."""

    def inner(done: float, note: str = "") -> None:
        progress(start + (end - start) * done, f"{label} {note}".strip())

    return inner


def part_of(progress: Progress, index: int, count: int, name: str) -> Progress:
    """The progress of method `index` of `count`, within that of all."""

    def step(done: float, note: str = "") -> None:
        progress((index + done) / count, f"{name} {note}".strip())

    return step
