"""What stages leave for the metrics: seconds, errors, refusals, repairs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from guard.core import tracing
from guard.core.errors import ArtifactRejected, InputError, MethodFailed, Unavailable
from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.tallies import DETECTOR_ERRORS, P_VALUES, collecting
from guard.events import Nomination
from guard.flow import _observed, run_stage
from guard.flow._observed import examined
from guard.flow.nominate import nominate
from guard.store import tallies
from guard.store.session import reading
from guard.traces import Traces
from tests.flow.place import Place, finding
from tests.test_traces import SENDER, TRACE


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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


def counted(place: Place, name: str) -> dict[tuple[str, ...], float]:
    with reading(place.guard.engine) as session:
        found = tallies.every(session)
    return {
        tuple(value for _, value in pairs): number
        for (family, pairs), number in found.items()
        if family == name
    }


def test_each_run_of_a_stage_is_timed_with_its_outcome(place: Place) -> None:
    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    run_stage.work(place.guard, "decide", scan_id)

    sums = counted(place, "guard_scan_seconds_sum")
    assert set(sums) == {("inspect", "done"), ("decide", "done")}
    assert 0 < sums["inspect", "done"] < 120


def hexadecimal(spans: tuple[ReadableSpan, ...]) -> list[tuple[str, str, str]]:
    """Name, trace and parent of each span; the parent is empty where there is none."""
    return [
        (
            one.name,
            f"{one.context.trace_id:032x}",
            "" if one.parent is None else f"{one.parent.span_id:016x}",
        )
        for one in spans
        if one.context is not None
    ]


@pytest.mark.row(52)
def test_an_upload_is_one_trace_from_its_event_to_publishing(
    exported: InMemorySpanExporter, place: Place
) -> None:
    wanted = Nomination("models", "models/a/model.safetensors", "v", "s3")
    with tracing.called(SENDER):
        (trace,) = nominate(place.guard.engine, [wanted], place.clock, buckets=("models",))
    scan_id = place.upload(trace=trace)
    run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    run_stage.work(place.guard, "decide", scan_id)
    run_stage.work(place.guard, "publish", scan_id)

    spans = exported.get_finished_spans()
    root = tracing.root_of(trace)
    found = hexadecimal(spans)
    assert {trace_id for _, trace_id, _ in found} == {trace}
    assert found[0] == ("upload", trace, "")
    assert f"{spans[0].context.span_id:016x}" == root
    stages = [(name, parent) for name, _, parent in found if name.startswith("stage ")]
    assert stages == [(f"stage {name}", root) for name in ("inspect", "decide", "publish")]
    assert "job inspect" in [name for name, _, _ in found]
    (link,) = spans[0].links
    assert f"{link.context.trace_id:032x}" == TRACE


def test_a_refused_upload_is_counted_by_the_code_of_the_rule(place: Place) -> None:
    run_stage.work(place.guard, "inspect", place.upload(b"\x00" * 100))

    ((stage, code),) = counted(place, "guard_refusal_total")
    assert stage == "inspect"
    assert code == "unknown_format"


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (MethodFailed("slow", code="out_of_time"), "given_up", "out_of_time"),
        (Unavailable("away"), "error", "unavailable"),
        (RuntimeError("a bug"), "error", "internal"),
        (InputError("x", code="A code\nof somebody else's"), "error", "other"),
    ],
)
def test_a_stage_that_fails_is_counted_by_the_code_of_its_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str, code: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setitem(run_stage.STAGES, "inspect", fails)
    scan_id = place.upload()
    if outcome == "error":
        with pytest.raises(type(error)):
            run_stage.work(place.guard, "inspect", scan_id)
    else:
        run_stage.work(place.guard, "inspect", scan_id)

    assert counted(place, "guard_stage_error_total") == {("inspect", code): 1.0}
    assert set(counted(place, "guard_scan_seconds_sum")) == {("inspect", outcome)}


def test_counters_that_cannot_be_written_do_not_hold_a_scan(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("The database is locked.")

    monkeypatch.setattr(tallies, "add", away)
    scan_id = place.upload()

    assert run_stage.work(place.guard, "inspect", scan_id)
    assert place.messages() == ["detect"]


def test_only_the_policys_detectors_become_labels_and_crashes_are_told_apart() -> None:
    item = Evidence(
        artifact="a",
        method="margin",
        version=1,
        parameters={},
        cleanset="c",
        seed=0,
        outcome=Outcome.FINDINGS,
        families=("patch",),
        findings=(
            Finding(
                family="patch",
                target=1,
                suspicious=False,
                score=0.1,
                statement="s",
                numbers={"p_value": 0.03},
            ),
        ),
        seconds=2.0,
    )
    blind = replace(item, outcome=Outcome.COULD_NOT_LOOK, findings=(), reason="It has no labels.")
    crashed = replace(blind, reason="RuntimeError: shapes do not fit")
    stranger = replace(item, method="x" * 99)
    with collecting() as found:
        examined([item, replace(item, findings=()), blind, crashed, stranger], ["margin"])

    errors = {
        pairs: n for (name, pairs), n in found.items() if name == f"{DETECTOR_ERRORS.name}_total"
    }
    assert errors == {
        (("detector", "margin"), ("kind", "could_not_look")): 1.0,
        (("detector", "margin"), ("kind", "crash")): 1.0,
    }
    assert found[f"{P_VALUES.name}_bucket", (("detector", "margin"), ("le", "0.05"))] == 1.0
    assert found["guard_detector_seconds_sum", (("detector", "margin"),)] == 8.0
    assert "x" * 99 not in str(found)


def test_a_code_is_a_label_only_in_the_form_of_ours() -> None:
    assert _observed.code_of(ArtifactRejected("x", code="zip_bomb")) == "zip_bomb"
    assert _observed.code_of(ArtifactRejected("x", code="q" * 60)) == "other"
