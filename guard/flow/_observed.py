"""What a stage leaves for those who watch the service: its span, its seconds and what it counted.

Nothing here may hold a scan or change how it ends: counters that cannot be written are dropped.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from guard.core import tallies
from guard.core.errors import GuardError
from guard.core.evidence import Evidence, Outcome
from guard.core.tracing import Place, Span, span
from guard.policy.features import p_values
from guard.store import tallies as rows
from guard.store.session import transaction

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.store.rows import ScanRow
    from guard.store.training_rows import TrainingJobRow

DONE, GIVEN_UP, ERROR = "done", "given_up", "error"
_LOG = structlog.get_logger()
_CODE = re.compile(r"[a-z][a-z0-9_]{0,47}")
#: Beginning of the reason of a crash, such as `RuntimeError: ...`.
_CRASH = re.compile(r"[A-Z]\w*(Error|Exception|Exit): ")


class Seen:
    """One run of a stage, from which its outcome is read at the end."""

    def __init__(self, stage: str) -> None:
        self.outcome = DONE
        self.span: Span | None = None
        self._stage = stage

    def gave_up(self, error: GuardError | None = None) -> None:
        """It cannot be done, and its scan ends."""
        self.outcome = GIVEN_UP
        if error is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """It ended by an error."""
        code = code_of(error)
        if self.span is not None:
            self.span.note(code=code)
        tallies.count(tallies.STAGE_ERRORS, self._stage, code)


def trace_of(scan: "ScanRow") -> str:
    """The trace that a scan is part of: its upload's, or its own."""
    return scan.detail.trace or scan.id


def code_of(error: BaseException) -> str:
    """An error's code as a label; a job's process may have made it up."""
    code = error.code if isinstance(error, GuardError) else "internal"
    return code if _CODE.fullmatch(code) else tallies.OTHER


@contextmanager
def scan_stage(guard: "Guard", stage: str, scan: "ScanRow") -> Iterator[Seen]:
    """One run of a stage on a scan."""
    place = Place(trace_id=trace_of(scan), stage=stage, scan_id=scan.id)
    with _stage(guard, place) as seen:
        yield seen


@contextmanager
def job_stage(guard: "Guard", job: "TrainingJobRow") -> Iterator[Seen]:
    """One run of a job on a training set, which is a trace of its own."""
    with _stage(guard, Place(trace_id=job.id, stage=str(job.kind), job_id=job.id)) as seen:
        yield seen


@contextmanager
def intake_of(guard: "Guard", nomination_id: str) -> Iterator[Seen]:
    """One look at a nominated object."""
    place = Place(trace_id=nomination_id, stage="receive", nomination_id=nomination_id)
    with _stage(guard, place) as seen:
        yield seen


@contextmanager
def _stage(guard: "Guard", place: Place) -> Iterator[Seen]:
    seen = Seen(place.stage)
    with tallies.collecting() as counted:
        begun, seconds = time.monotonic(), 0.0
        try:
            with span(f"stage {place.stage}", place) as seen.span:
                _LOG.info("stage_started")
                try:
                    yield seen
                except Exception as error:
                    seen.outcome = ERROR
                    seen.failed(error)
                    raise
                finally:
                    seconds = time.monotonic() - begun
                    seen.span.note(outcome=seen.outcome)
                    _LOG.info("stage_ended", outcome=seen.outcome, seconds=round(seconds, 3))
        finally:
            tallies.observe(tallies.STAGES, place.stage, seen.outcome, value=seconds)
            _keep(guard, counted)


def _keep(guard: "Guard", counted: "tallies.Counted") -> None:
    try:
        with transaction(guard.engine) as session:
            rows.add(session, counted)
    except Exception as error:  # noqa: BLE001 - counters hold no scan
        _LOG.warning("counters_dropped", error=str(error), kind=type(error).__name__)


def refused(stage: str, error: GuardError) -> None:
    """An upload broke a rule."""
    tallies.count(tallies.REFUSALS, stage, code_of(error))


def examined(evidence: Iterable[Evidence], detectors: Iterable[str]) -> None:
    """New evidence: how long each of the policy's detectors took, and what it said or could not."""
    known = set(detectors)
    for item in evidence:
        if item.method not in known:
            continue
        tallies.observe(tallies.DETECTORS, item.method, value=max(0.0, item.seconds))
        if item.outcome is Outcome.COULD_NOT_LOOK:
            kind = "crash" if _CRASH.match(item.reason) else "could_not_look"
            tallies.count(tallies.DETECTOR_ERRORS, item.method, kind)
        elif least := p_values([item]).values():
            tallies.observe(tallies.P_VALUES, item.method, value=min(least))


def repair(defense: str, outcome: str) -> None:
    """An attempt to repair: `tried`, `failed` or `accepted`."""
    tallies.count(tallies.REPAIRS, defense, outcome)
