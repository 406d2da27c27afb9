"""A worker of the queue `train` is killed while it trains, and another one goes on to the bit."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import redis
import structlog
from sqlalchemy import delete

from guard.core.errors import InputError, LeaseLost, Unavailable
from guard.core.training_jobs import JobState
from guard.flow import run_job
from guard.flow.context import utc_now
from guard.flow.rescue import rescue
from guard.logs import configure
from guard.settings import load_settings
from guard.store import outbox
from guard.store.session import reading, transaction
from guard.store.training_rows import TrainingJobRow
from guard.store.training_tables import TrainingJob
from tests.flow.jobs import Service
from tests.services import shared_valkey, shared_weed
from workers import tasks
from workers.app import make_app
from workers.relay import send_due
from workers.retries import FIRST_PAUSE, LONGEST_PAUSE

PATIENCE = 240.0  # for what takes seconds on an idle machine
PARAMETERS = {"epochs": 30}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Settings with S3 for blobs, a broker, and leases that end soon."""
    weed = shared_weed()
    return {
        **weed.environment("models"),
        "GUARD_DATA_DIR": str(tmp_path / "data"),
        "GUARD_BLOB_URL": f"s3://{weed.new_bucket(versioned=False).name}/sha256",
        "GUARD_REDIS_URL": shared_valkey().url,
        "GUARD_LEASE_SECONDS": "3",
    }


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def worker(env: dict[str, str], folder: Path) -> Iterator[psutil.Popen]:
    """A real worker of the queue; whatever is left of it is killed at the end."""
    arguments = "-A workers.app worker -P prefork -c 1 -Q train --loglevel WARNING"
    with (folder / "log").open("ab") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "celery", *arguments.split(), "-n", f"{time.time()}@h"],
            env={**os.environ, "GUARD_DEVICE": "cpu", **env},
            cwd=Path(__file__).parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: psutil.Popen) -> None:
    """kill -9 of the worker and its pool; its jobs end with them."""
    if not process.is_running():
        return
    for one in [*process.children(recursive=True), process]:
        one.send_signal(signal.SIGKILL)
    process.wait()


def at_pass(job: TrainingJobRow) -> int:
    found = re.match(r"training pass (\d+)", job.note)
    return int(found.group(1)) if found else 0


def test_a_killed_worker_loses_no_bit(env: dict[str, str], tmp_path: Path) -> None:
    service = Service(tmp_path, env)
    service.guard = replace(service.guard, now=utc_now)
    app = make_app(load_settings(env))
    redis.Redis.from_url(env["GUARD_REDIS_URL"]).delete("train")
    whole = service.work(service.ask(parameters=PARAMETERS))
    assert whole.state is JobState.DONE, whole.error
    with transaction(service.guard.engine) as session:
        session.execute(delete(TrainingJob))

    job = service.ask(parameters=PARAMETERS)
    send_due(service.guard, app)
    with worker(env, tmp_path) as first:
        until(lambda: len(service.job(job).files) == 2)
        kill(first)
    killed = service.job(job)
    assert (killed.state, killed.child_digest) == (JobState.RUNNING, None)
    until(lambda: job.id in rescue(service.guard))
    send_due(service.guard, app)

    passes: list[int] = []

    def done() -> bool:
        now = service.job(job)
        if now.lease_token > killed.lease_token and now.spent_seconds > killed.spent_seconds:
            passes.append(at_pass(now))
        return now.state is not JobState.RUNNING

    with worker(env, tmp_path):
        until(done)
    again = service.job(job)
    assert again.state is JobState.DONE, again.error
    assert again.child_digest == whole.child_digest
    assert again.spent_seconds > killed.spent_seconds
    assert min(filter(None, passes)) > 1  # it did not begin anew


@pytest.mark.parametrize(
    ("error", "state", "pause"),
    [
        (Unavailable("S3 is away."), JobState.QUEUED, FIRST_PAUSE),
        (RuntimeError("a bug"), JobState.QUEUED, FIRST_PAUSE),
        (InputError("not known"), JobState.FAILED, None),
        (LeaseLost("another worker has it"), JobState.QUEUED, None),
    ],
)
def test_what_follows_an_error_hangs_on_whose_fault_it_is(
    tmp_path: Path, error: Exception, state: JobState, pause: float | None
) -> None:
    service = Service(tmp_path)
    job = service.ask()
    service.sent()
    tasks._recover_job(service.guard, "retrain", job.id, error)

    assert service.job(job).state is state
    with reading(service.guard.engine) as session:
        later = outbox.due(session, service.clock + timedelta(days=1))
    waits = [(row.not_before - service.clock).total_seconds() for row in later]
    assert len(waits) == (pause is not None)
    assert all(pause is not None and pause / 2 <= one <= pause for one in waits)


def test_a_job_waits_longer_for_each_try_that_finds_no_store(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job = service.ask()
    service.sent()
    tasks._recover_job(service.guard, "retrain", job.id, Unavailable("S3 is away."), tries=9)

    with reading(service.guard.engine) as session:
        (later,) = outbox.due(session, service.clock + timedelta(days=1))
    assert later.payload == {"job_id": job.id, "tries": 10}
    assert (later.not_before - service.clock).total_seconds() >= LONGEST_PAUSE / 2


def test_each_line_of_a_job_has_the_trace_that_is_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("S3 is away.")

    service = Service(tmp_path)
    job = service.ask()
    monkeypatch.setattr(tasks, "_guards", [service.guard])
    monkeypatch.setitem(run_job.STAGES, job.kind, away)
    stream = io.StringIO()
    configure(stream=stream)
    tasks.retrain(job.id)
    tasks.retrain("0" * 32)
    structlog.reset_defaults()

    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in found] == [
        "stage_started",
        "stage_ended",
        "job_failed",
        "job_held_elsewhere",
    ]
    assert {(line["trace_id"], line["job_id"], line["stage"]) for line in found[:3]} == {
        (job.id, job.id, "retrain")
    }
