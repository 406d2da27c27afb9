"""Where the work of this moment belongs: the trace of an upload, its scan and its stage.

A trace follows an upload from its event to serving, over all processes. Nothing has to be handed
along: the trace's id is that of the nomination, which is a W3C trace id as it is, the scan notes
it, and the id of the root span follows from it. So a message that the broker loses or repeats
breaks no trace.

Log lines carry the place (`guard.logs`). Spans go to whatever was installed: an exporter
(`guard.traces`), the notes that a job's process leaves with its result, or nothing.
Source: W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

#: What a span may have as the value of a fact: no text of an uploader's, and no long one.
Fact = str | int | float | bool
MAX_FACT = 64
#: How many spans of a job's process are taken over, and how far its clock may differ, in seconds.
MAX_PARTS, SLACK = 200, 1.0
_TRACE, _SPAN = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NAME = re.compile(r"[a-z][a-z0-9_ .-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The trace, stage and ids that work belongs to; empty text for what does not apply."""

    trace_id: str
    stage: str = ""
    scan_id: str = ""
    nomination_id: str = ""
    job_id: str = ""

    def to_dict(self) -> dict[str, str]:
        """What is known, by name."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Caller:
    """The span of whoever sent an event, as `traceparent` states it; it proves nothing."""

    trace_id: str
    span_id: str


@dataclass(frozen=True)
class Part:
    """A span that ended elsewhere; times in seconds since 1970."""

    name: str
    begun: float
    ended: float

    def to_plain(self) -> list[Any]:
        """JSON-ready."""
        return [self.name, round(self.begun, 6), round(self.ended, 6)]


class Span(Protocol):
    """A span under way."""

    def note(self, **facts: Fact) -> None:
        """Add facts: names, numbers and codes of ours."""

    def part(self, part: Part) -> None:
        """Add a span below this one that has ended already."""


class Tracer(Protocol):
    """Whoever takes spans; it must neither raise nor wait."""

    def span(self, name: str, place: Place | None, *, root: bool) -> AbstractContextManager[Span]:
        """A span for the duration of a block."""


class _Silent:
    def note(self, **facts: Fact) -> None:
        pass

    def part(self, part: Part) -> None:
        pass


def silent() -> Span:
    """A span that nobody takes."""
    return _Silent()


@dataclass
class Notes:
    """A tracer that only remembers names and times, for a process without a network."""

    parts: list[Part] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, place: Place | None, *, root: bool) -> Iterator[Span]:
        """Note when a block began and ended."""
        del place, root
        begun = time.time()
        try:
            yield _Silent()
        finally:
            if len(self.parts) < MAX_PARTS:
                self.parts.append(Part(name, begun, time.time()))


_HERE: ContextVar[Place | None] = ContextVar("place", default=None)
_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
_tracers: list[Tracer] = []  # at most one


def install(tracer: Tracer | None) -> None:
    """Have this process's spans go to `tracer` from now on; None: nowhere."""
    _tracers[:] = [] if tracer is None else [tracer]


def here() -> Place | None:
    """The place of what this thread does now."""
    return _HERE.get()


def caller() -> Caller | None:
    """The span of the sender of the event that is being handled."""
    return _CALLER.get()


@contextmanager
def span(name: str, place: Place | None = None, *, root: bool = False) -> Iterator[Span]:
    """A span for the duration of the block, below the one of the block around it.

    Args:
        name: of ours, such as "stage detect".
        place: what the work belongs to; None where the block around it says so.
        root: it is the first span of the trace.
    """
    made = (
        _tracers[0].span(name, place or here(), root=root) if _tracers else nullcontext(_Silent())
    )
    with nullcontext() if place is None else at(place), made as found:
        yield found


@contextmanager
def at(place: Place) -> Iterator[None]:
    """The place of what the block does, without a span."""
    token = _HERE.set(place)
    try:
        yield
    finally:
        _HERE.reset(token)


@contextmanager
def called(traceparent: str) -> Iterator[None]:
    """Link the traces that begin in the block to the sender's own; nonsense links to nothing."""
    token = _CALLER.set(parse(traceparent))
    try:
        yield
    finally:
        _CALLER.reset(token)


def parse(traceparent: str) -> Caller | None:
    """A W3C `traceparent` header; None where it is none."""
    found = _PARENT.fullmatch(traceparent.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if not int(found[2], 16) or not int(found[3], 16):
        return None
    return Caller(found[2], found[3])


def root_of(trace_id: str) -> str:
    """The id of a trace's root span, 16 hexadecimal digits, the same in every process."""
    return hashlib.sha256(trace_id.encode()).hexdigest()[:16]


def is_trace(trace_id: str) -> bool:
    """Whether a text is a trace id."""
    return _TRACE.fullmatch(trace_id) is not None and int(trace_id, 16) != 0


def shown(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Facts as a span may carry them: short, and without characters that need escaping."""
    return {
        name: re.sub(r"[^\w .:/-]", "?", value, flags=re.ASCII)[:MAX_FACT]
        if isinstance(value, str)
        else value
        for name, value in facts.items()
    }


def parts_from(value: Any, begun: float, ended: float) -> Sequence[Part]:
    """The spans that a job's process noted, as far as they can be true.

    That process read untrusted bytes: a name must be one of ours in form, and the times lie within
    those of the job.
    """
    found = []
    for item in value[:MAX_PARTS] if isinstance(value, list) else ():
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[0], str)):
            continue
        name, start, end = item
        if not all(type(at) in (int, float) for at in (start, end)) or not _NAME.fullmatch(name):
            continue
        if begun - SLACK <= start <= end <= ended + SLACK:
            found.append(Part(name, max(begun, start), max(begun, min(ended, end))))
    return found
