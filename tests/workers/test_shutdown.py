"""A worker that is told to end does so in bounded time, whatever became of its broker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from guard.settings import load_settings
from tests.services import Valkey, start_valkey, stop
from workers.app import make_app
from workers.shutdown import end_without

#: Seconds, of which a busy machine may need most.
START, END = 120.0, 60.0


def until(true: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s"
        time.sleep(0.1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    valkey = start_valkey(tmp_path / "valkey")
    yield valkey
    stop(valkey.process)


@pytest.fixture
def worker(broker: Valkey, tmp_path: Path) -> Iterator[psutil.Popen]:
    """A real worker that waits for messages of the queue `publish`."""
    env = {
        **os.environ,
        "GUARD_REDIS_URL": broker.url,
        "GUARD_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    arguments = "-A tests.workers.sleepy worker -P prefork -c 1 -Q publish -n w@h --loglevel INFO"
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "celery", *arguments.split()],
            env=env,
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield process
    if process.is_running():
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def busy(worker: psutil.Popen, broker: Valkey, begun: Path) -> list[psutil.Process]:
    """Give the worker a task without end; returns its processes once it is at it."""
    app = make_app(load_settings({"GUARD_REDIS_URL": broker.url}))
    app.send_task("sleep", [str(begun)], queue="publish")
    until(begun.exists, START)
    return [worker, *worker.children(recursive=True)]


def test_a_worker_at_a_task_whose_broker_dies_while_it_ends_ends(
    worker: psutil.Popen, broker: Valkey, tmp_path: Path
) -> None:
    processes = busy(worker, broker, tmp_path / "begun")

    worker.send_signal(signal.SIGTERM)
    until(lambda: "Warm shutdown" in (tmp_path / "log").read_text(), START)
    stop(broker.process)

    _, alive = psutil.wait_procs(processes, timeout=END)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert "worker_ends_without_broker" in (tmp_path / "log").read_text()


def test_a_worker_without_a_broker_ends_when_it_is_told_to(
    worker: psutil.Popen, broker: Valkey
) -> None:
    client = redis.Redis.from_url(broker.url)
    until(lambda: client.smembers("_kombu.binding.celery.pidbox"), START)
    processes = [worker, *worker.children(recursive=True)]
    stop(broker.process)  # in the middle of its start, in which it would wait for ever

    worker.send_signal(signal.SIGTERM)

    _, alive = psutil.wait_procs(processes, timeout=END)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_while_the_broker_answers_now_and_then_a_worker_may_take_its_time() -> None:
    answers = iter([True, False, True, False, False, True, False, False, False, True])
    ends: list[bool] = []

    end_without(lambda: next(answers), lambda: ends.append(next(answers)), patience=3, pause=0.0)

    assert ends == [True]
    assert next(answers, None) is None
