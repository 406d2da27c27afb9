"""Spans to an OpenTelemetry collector by OTLP/HTTP; without an endpoint nothing is imported.

A queue that is full and a collector that does not answer lose spans, and never hold work: a thread
sends, and whoever ends waits for it a few seconds at most.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import structlog

from guard.core import tracing
from guard.core.errors import InputError, MissingExtra
from guard.core.secret import Secret
from guard.core.tracing import Fact, Part, Place, Span, shown

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

#: How long one batch may take to be sent, retries included, and how many spans may wait.
TIMEOUT_SECONDS, QUEUE = 3, 1024
SERVICE = "registry-guard"
_LOG = structlog.get_logger()
_ROOT: ContextVar[tuple[int, int] | None] = ContextVar("root", default=None)
_started: dict[tuple[str, str], "Traces"] = {}  # by endpoint and headers


def start(endpoint: str, headers: Secret) -> None:
    """Send this process's spans to `endpoint` from now on; with none, do nothing.

    Call it after a fork: the thread that sends does not survive one.

    Raises:
        MissingExtra: the extra `otel` is not installed.
        InputError: the headers are no list of NAME=VALUE.
    """
    if not endpoint:
        return
    key = endpoint, headers.reveal()
    if key not in _started:
        _started[key] = Traces.to(endpoint, parsed(headers))
    tracing.install(_started[key])


def flush() -> None:
    """Send what waits, for a process whose end runs nothing else."""
    for one in _started.values():
        one.provider.force_flush(TIMEOUT_SECONDS * 1000)


class Traces:
    """A tracer of `guard.core.tracing` on OpenTelemetry's SDK."""

    def __init__(self, provider: "TracerProvider") -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("guard", _release())

    @classmethod
    def to(cls, endpoint: str, headers: Mapping[str, str]) -> "Traces":
        """One that sends by OTLP/HTTP.

        Raises:
            MissingExtra: the extra `otel` is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise MissingExtra(
                "GUARD_OTLP_ENDPOINT is set and OpenTelemetry is not installed; install "
                "registry-guard[otel], or leave it out."
            ) from None
        return cls.into(OTLPSpanExporter(endpoint, headers=headers, timeout=TIMEOUT_SECONDS))

    @classmethod
    def into(cls, exporter: Any) -> "Traces":
        """One whose spans a thread hands to an exporter."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider, sampling
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(
            # Uploads are few: whoever wants a share of them takes it in the collector.
            sampler=sampling.ALWAYS_ON,
            resource=Resource.create({"service.name": SERVICE, "service.version": _release()}),
            id_generator=_ids(),
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE,
                max_export_batch_size=QUEUE,
                schedule_delay_millis=1000,
            )
        )
        return cls(provider)

    @contextmanager
    def span(self, name: str, place: Place | None, *, root: bool) -> Iterator[Span]:
        """A span; what fails here leaves the work without one."""
        with ExitStack() as stack:
            try:
                made: Span = _Span(
                    self._tracer, stack.enter_context(self._begun(name, place, root))
                )
            except Exception as error:  # noqa: BLE001 - the work goes on without a span
                _LOG.warning("span_lost", name=name, error=str(error))
                made = tracing.silent()
            try:
                yield made
            except BaseException as error:
                made.note(error=type(error).__name__)
                if isinstance(made, _Span):
                    made.fail()
                raise

    def _begun(self, name: str, place: Place | None, root: bool) -> Any:  # noqa: FBT001
        from opentelemetry import context, trace

        where, links = context.get_current(), []
        facts = {} if place is None else place.to_dict()
        trace_id = facts.pop("trace_id", "")
        ids = None
        if tracing.is_trace(trace_id):
            if root:
                ids = int(trace_id, 16), int(tracing.root_of(trace_id), 16)
                where = context.Context()
                links = _links()
            elif trace.get_current_span().get_span_context().trace_id != int(trace_id, 16):
                where = trace.set_span_in_context(_remote(trace_id), context.Context())
        token = _ROOT.set(ids)
        try:
            made = self._tracer.start_span(
                name,
                where,
                attributes={f"guard.{key}": value for key, value in shown(facts).items()},
                links=links,
            )
        finally:
            _ROOT.reset(token)
        # An exception's text may be an uploader's.
        return trace.use_span(
            made, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )


class _Span:
    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer, self._span = tracer, span

    def note(self, **facts: Fact) -> None:
        self._span.set_attributes({f"guard.{key}": value for key, value in shown(facts).items()})

    def fail(self) -> None:
        """Mark it as one that ended by an error."""
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)

    def part(self, part: Part) -> None:
        from opentelemetry import trace

        where = trace.set_span_in_context(self._span)
        made = self._tracer.start_span(part.name, where, start_time=int(part.begun * 1e9))
        made.end(end_time=int(part.ended * 1e9))


def _ids() -> Any:
    """Ids of a root span follow from its trace; all others are random."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            ids = _ROOT.get()
            return super().generate_trace_id() if ids is None else ids[0]

        def generate_span_id(self) -> int:
            ids = _ROOT.get()
            return super().generate_span_id() if ids is None else ids[1]

    return Ids()


def _remote(trace_id: str) -> Any:
    """The root span of a trace, which another process made."""
    return _reference(trace_id, tracing.root_of(trace_id))


def _reference(trace_id: str, span_id: str) -> Any:
    from opentelemetry import trace

    return trace.NonRecordingSpan(
        trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
        )
    )


def _links() -> list[Any]:
    from opentelemetry import trace

    sender = tracing.caller()
    if sender is None:
        return []
    return [trace.Link(_reference(sender.trace_id, sender.span_id).get_span_context())]


def parsed(headers: Secret) -> dict[str, str]:
    """The headers by name.

    Raises:
        InputError: they are no list of NAME=VALUE.
    """
    found = {}
    for pair in filter(None, (part.strip() for part in headers.reveal().split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(
                "GUARD_OTLP_HEADERS must be NAME=VALUE, separated by commas.", code="bad_setting"
            )
        found[name.strip()] = value.strip()
    return found


def _release() -> str:
    try:
        return version("registry-guard")
    except PackageNotFoundError:
        return "unknown"
