"""Progress of long work: the callback, and how one step fills its part of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

_MINUTE = 60  # seconds, and minutes of an hour


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


_left: ContextVar[float | None] = ContextVar("_left", default=None)


@contextmanager
def reckoned(seconds: float | None) -> Iterator[None]:
    """Inside the block, `seconds_left` is what the work under way reckons with; None: unknown."""
    token = _left.set(seconds)
    try:
        yield
    finally:
        _left.reset(token)


def seconds_left() -> float | None:
    """The time left of the work that calls a progress, in seconds; None where nobody knows.

    It is beside the arguments of a progress, so that whoever stands between need not pass it on.
    """
    return _left.get()


def left_text(seconds: float | None) -> str:
    """The time left for people, such as "3 min left"; empty where nobody knows."""
    return "" if seconds is None else f"{span_text(seconds)} left"


def span_text(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min", "1 h 20 min"."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    minutes = round(seconds / _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"
