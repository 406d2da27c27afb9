"""One trace from an upload's event to publishing, over processes; and what it never does."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from guard import traces
from guard.core import tracing
from guard.core.errors import InputError
from guard.core.tracing import Notes, Part, Place, parts_from, span
from guard.settings import Secret
from guard.traces import Traces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    """The spans of this process."""
    memory = InMemorySpanExporter()
    made = Traces.into(InMemorySpanExporter())
    made.provider.add_span_processor(SimpleSpanProcessor(memory))
    tracing.install(made)
    yield memory
    tracing.install(None)
    made.provider.shutdown()


def test_what_a_process_of_a_job_did_is_below_the_job(exported: InMemorySpanExporter) -> None:
    notes = Notes()
    with notes.span("detector margin", None, root=False):
        pass
    plain = json.loads(json.dumps([part.to_plain() for part in notes.parts]))
    with span("job detect", Place(trace_id=TRACE)) as job:
        for part in parts_from(plain, time.time() - 60, time.time()):
            job.part(part)

    part_, whole = exported.get_finished_spans()
    assert (part_.name, whole.name) == ("detector margin", "job detect")
    assert part_.parent is not None
    assert part_.parent.span_id == whole.context.span_id
    assert part_.start_time is not None
    assert abs(part_.start_time / 1e9 - time.time()) < 60


@pytest.mark.parametrize(
    "told",
    [
        None,
        "x",
        [["detector a", 1.0]],
        [["Detector\nforged", 100.0, 101.0]],
        [["a" * 65, 100.0, 101.0]],
        [["detector a", "1", "2"]],
        [["detector a", True, 101.0]],
        [["detector a", 101.0, 100.0]],
        [["detector a", 1.0, 2.0]],
        [["detector a", 100.0, 1e12]],
    ],
)
def test_a_process_that_was_taken_over_cannot_put_just_anything_into_a_trace(told: object) -> None:
    assert parts_from(told, 100.0, 200.0) == []


def test_no_more_parts_are_taken_over_than_there_may_be() -> None:
    told = [["detector a", 100.0, 101.0]] * 500

    assert len(parts_from(told, 100.0, 200.0)) == tracing.MAX_PARTS
    assert parts_from([["detector a", 99.5, 200.9]], 100.0, 200.0) == [
        Part("detector a", 100.0, 200.0)
    ]


def test_facts_of_a_span_are_short_and_plain(exported: InMemorySpanExporter) -> None:
    with span("stage inspect", Place(trace_id=TRACE, stage="inspect")) as one:
        one.note(code="<script>\n" + "x" * 500, number=3)

    (found,) = exported.get_finished_spans()
    assert found.attributes is not None
    assert found.attributes["guard.stage"] == "inspect"
    assert found.attributes["guard.number"] == 3
    assert len(str(found.attributes["guard.code"])) == tracing.MAX_FACT
    assert "<" not in str(found.attributes["guard.code"])


def test_an_error_leaves_its_kind_and_not_its_text(exported: InMemorySpanExporter) -> None:
    with pytest.raises(InputError), span("stage inspect", Place(trace_id=TRACE)):
        raise InputError("what an uploader wrote")

    (found,) = exported.get_finished_spans()
    assert not found.status.is_ok
    assert found.events == ()
    assert "uploader" not in found.to_json()


@pytest.mark.parametrize(
    "text", ["", "x", SENDER + "-x", f"00-{'0' * 32}-{'1' * 16}-01", "ff" + SENDER[2:]]
)
def test_a_header_that_is_no_traceparent_links_to_nothing(text: str) -> None:
    assert tracing.parse(text) is None


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys, guard.bootstrap as b; b.open_guard();"
        "print([n for n in sys.modules if n.startswith('opentelemetry')])"
    )
    env = {"GUARD_DATA_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True
    )

    assert done.stdout.strip() == "[]"


class Collector:
    """A small OTLP/HTTP receiver on loopback."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[str] = []
        self.headers: list[str] = []
        self.bodies = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                collector.headers.append(self.headers["Authorization"])
                collector.spans += [
                    one.name
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for one in scope.spans
                ]
                self.send_response(status)
                self.end_headers()
                collector.bodies.set()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()
    tracing.install(None)
    for one in traces._started.values():
        one.provider.shutdown()
    traces._started.clear()


@pytest.mark.row(52)
def test_spans_reach_a_collector_with_its_token(collector: Collector) -> None:
    traces.start(collector.url, Secret("Authorization=Bearer t0ken, x=y"))
    traces.start(collector.url, Secret("Authorization=Bearer t0ken, x=y"))
    with span("stage inspect", Place(trace_id=TRACE)):
        pass
    traces.flush()

    assert collector.bodies.wait(30)
    assert collector.spans == ["stage inspect"]
    assert collector.headers == ["Bearer t0ken"]
    assert len(traces._started) == 1


def test_a_collector_that_is_away_holds_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "TIMEOUT_SECONDS", 1)
    traces.start("http://127.0.0.1:9/v1/traces", Secret())
    begun = time.monotonic()
    for _ in range(3 * traces.QUEUE):
        with span("stage inspect", Place(trace_id=TRACE)):
            pass

    assert time.monotonic() - begun < 10


def test_headers_that_are_none_are_refused(collector: Collector) -> None:
    with pytest.raises(InputError, match="NAME=VALUE"):
        traces.start(collector.url, Secret("Bearer"))


def test_a_tracer_that_breaks_leaves_the_work_alone(exported: InMemorySpanExporter) -> None:
    class Broken(SpanProcessor):
        def on_start(self, *_: object) -> None:
            raise RuntimeError("broken")

    made = Traces.into(InMemorySpanExporter())
    made.provider.add_span_processor(Broken())
    tracing.install(made)
    done = []
    with span("stage inspect", Place(trace_id=TRACE)) as one:
        one.note(code="x")
        one.part(Part("job", 1.0, 2.0))
        done.append(True)

    assert done == [True]
    made.provider.shutdown()
