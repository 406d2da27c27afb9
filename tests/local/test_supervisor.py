"""The embedded stack with real services: started, found, watched, and gone afterwards."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError

from guard.core.errors import InputError, Unavailable
from guard.local.component import State, Status
from guard.local.guard_processes import Migration
from guard.local.supervisor import Stack, running_environment
from guard.store.migrate import current, head

SECRETIVE = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")} | {
    "AWS_SECRET_ACCESS_KEY": "leak-me-not"
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, list[Status]]]:
    heard: list[Status] = []
    parts = ("seaweedfs", "valkey", "database")
    with Stack(tmp_path_factory.mktemp("stack") / "data", SECRETIVE, parts=parts) as stack:
        stack.start(heard.append)
        yield stack, heard


def test_every_part_is_reported_starting_and_then_ready(
    services: tuple[Stack, list[Status]],
) -> None:
    stack, heard = services

    assert [(one.component, one.state) for one in stack.status()] == [
        ("seaweedfs", State.READY),
        ("valkey", State.READY),
        ("database", State.READY),
    ]
    assert {one.state for one in heard if one.component == "valkey"} == {
        State.STARTING,
        State.READY,
    }
    assert all(one.pid for one in stack.status())


@pytest.mark.threat("C11")
def test_valkey_answers_with_the_password_and_refuses_without(
    services: tuple[Stack, list[Status]],
) -> None:
    url = services[0].environment()["GUARD_REDIS_URL"]

    assert redis.Redis.from_url(url).ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url("redis://" + url.split("@")[1]).ping()


def client(environment: dict[str, str], secret: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["GUARD_S3_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=environment["GUARD_S3_ACCESS_KEY"],
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def test_the_intake_bucket_keeps_versions(services: tuple[Stack, list[Status]]) -> None:
    environment = services[0].environment()
    s3 = client(environment, environment["GUARD_S3_SECRET_KEY"])
    first = s3.put_object(Bucket="models", Key="a", Body=b"one")["VersionId"]
    s3.put_object(Bucket="models", Key="a", Body=b"two")

    assert s3.get_object(Bucket="models", Key="a", VersionId=first)["Body"].read() == b"one"


def test_a_wrong_key_and_a_direct_write_to_the_filer_are_refused(
    services: tuple[Stack, list[Status]],
) -> None:
    stack, _ = services
    with pytest.raises(ClientError):
        client(stack.environment(), "wrong").list_buckets()
    filer = stack._place.ports["weed_filer"]
    answer = httpx.put(f"http://127.0.0.1:{filer}/buckets/models/smuggled", content=b"x")

    assert answer.status_code == 401


def test_the_database_has_its_schema(services: tuple[Stack, list[Status]]) -> None:
    assert current(services[0].environment()["GUARD_DATABASE_URL"]) == head()


@pytest.mark.threat("C24")
def test_services_do_not_inherit_the_environment_of_the_person(
    services: tuple[Stack, list[Status]],
) -> None:
    for status in services[0].status()[:2]:
        seen = psutil.Process(status.pid).environ()

        assert "leak-me-not" not in seen.values()


def test_no_password_is_shown_or_stands_on_a_command_line(
    services: tuple[Stack, list[Status]],
) -> None:
    stack, heard = services
    words = set(stack._place.secrets.values())
    shown = " ".join(str(one) for one in heard) + " ".join(
        " ".join(psutil.Process(one.pid).cmdline()) for one in stack.status()[:2]
    )

    assert not [word for word in words if word in shown]


@pytest.mark.threat("A11")
def test_folders_and_records_are_private(services: tuple[Stack, list[Status]]) -> None:
    data = services[0]._place.data
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (data, services[0]._place.run, data / "stack.json", data / "secrets.json")
    }

    assert all(mode & 0o077 == 0 for mode in modes.values())


def test_another_terminal_finds_the_running_stack(services: tuple[Stack, list[Status]]) -> None:
    assert running_environment(services[0]._place.data) == services[0].environment()


def test_a_second_stack_on_the_same_folder_is_refused(services: tuple[Stack, list[Status]]) -> None:
    with pytest.raises(InputError) as refusal:
        Stack(services[0]._place.data, SECRETIVE)

    assert refusal.value.code == "stack_running"


def test_what_runs_elsewhere_is_used_and_not_started(tmp_path: Path) -> None:
    env = {"REDIS_URL": "redis://:hush@127.0.0.1:1/0", "GUARD_S3_ENDPOINT": "http://store.example"}
    with Stack(tmp_path / "data", env, parts=("seaweedfs", "valkey")) as stack:
        stack.start()

        assert [(one.address, one.state) for one in stack.status()] == [
            ("http://store.example", State.EXTERNAL),
            ("127.0.0.1:1/0", State.EXTERNAL),
        ]
        assert stack.environment()["GUARD_REDIS_URL"] == "redis://:hush@127.0.0.1:1/0"
        assert "GUARD_S3_ACCESS_KEY" not in stack.environment()


def test_a_part_that_dies_is_reported_and_stopping_leaves_nothing(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", SECRETIVE, parts=("valkey",)) as stack:
        stack.start()
        (before,) = stack.status()
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="valkey ended with -9"):
            stack.wait()
        (after,) = stack.status()

        assert after.state is State.FAILED
    assert not (tmp_path / "data" / "run").exists()
    assert not psutil.pid_exists(before.pid)
    assert running_environment(tmp_path / "data") == {}


def test_a_part_that_cannot_start_says_why(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", SECRETIVE, parts=("valkey",)) as stack:
        (tmp_path / "data" / "valkey").write_text("a file where a folder should be")
        with pytest.raises(Unavailable, match="valkey could not be started"):
            stack.start()

        assert stack.status()[0].state is State.FAILED


def test_secrets_and_data_outlive_a_restart(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        with Stack(tmp_path / "data", SECRETIVE, parts=("valkey",)) as stack:
            stack.start()
            url = stack.environment()["GUARD_REDIS_URL"]
            broker = redis.Redis.from_url(url)
            kept.append((url.split("@")[0], broker.incr("starts")))

    assert kept[0][0] == kept[1][0]
    assert kept[1][1] == 2


POLITE = """
import sys
from pathlib import Path
from guard.local.supervisor import Stack, interrupted_by_signals
try:
    with interrupted_by_signals(), Stack(Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, parts=("valkey",)) as stack:
        stack.start()
        print(stack.status()[0].pid, flush=True)
        stack.wait()
except KeyboardInterrupt:
    print("ended in order")
"""  # noqa: E501 - a script of its own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_supervisor_that_is_told_to_end_ends_everything(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", POLITE, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(number)
        rest = parent.stdout.read()

    assert rest == "ended in order\n"
    assert not psutil.pid_exists(pid)
    assert not (tmp_path / "data" / "run").exists()


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from guard.local.supervisor import Stack
stack = Stack(Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, parts=("valkey",))
stack.start()
print(stack.status()[0].pid, flush=True)
time.sleep(60)
"""


def test_a_killed_supervisor_takes_its_parts_along_and_the_next_start_cleans_up(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(data)], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = json.loads((data / "stack.json").read_text())

    assert not psutil.pid_exists(pid)
    assert left["processes"]["valkey"]["pid"] == pid
    with Stack(data, SECRETIVE, parts=("valkey",)) as stack:
        stack.start()

        assert stack.status()[0].state is State.READY


def test_an_orphan_that_survived_is_ended_by_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    orphan = subprocess.Popen(["sleep", "60"], start_new_session=True)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        processes = {
            "valkey": {"pid": orphan.pid, "started": psutil.Process(orphan.pid).create_time()},
            "weed": {
                "pid": stranger.pid,
                "started": 1.0,
            },  # the number was given to somebody else since
        }
        (data / "stack.json").write_text(json.dumps({"processes": processes, "run": "/"}))
        Stack(data, SECRETIVE, parts=()).stop()

        assert orphan.wait(timeout=5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for process in (orphan, stranger):
            process.kill()
            process.wait()


def test_a_long_data_path_gets_a_short_run_folder(tmp_path: Path) -> None:
    data = tmp_path / ("d" * 100)
    with Stack(data, SECRETIVE, parts=()) as stack:
        run = stack._place.run

        assert len(str(run)) < 60
        assert run.is_dir()
    assert not run.exists()


def test_another_publisher_than_torchserve_starts_none(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", {**SECRETIVE, "GUARD_PUBLISHER": "folder"}) as stack:
        parts = {status.component for status in stack.status()}

    assert "torchserve" not in parts
    assert "worker-control" in parts
    assert "GUARD_TORCHSERVE_MANAGEMENT" not in stack.environment()


def test_a_migration_gets_the_time_that_a_large_database_needs() -> None:
    assert Migration.start_seconds >= 3600
