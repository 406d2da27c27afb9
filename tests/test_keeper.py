"""Nothing of a test run stays behind, however it ends; and it talks to nobody else."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from tests.network import is_here

RUN = """
import sys
from tests import keeper, postgres, services
run = keeper.Keeper(services.SHARED | postgres.SHARED)
valkey, again = services.shared_valkey(), keeper.ask("valkey")
assert str(valkey.folder) == again["folder"]
if sys.argv[1] == "postgres":
    keeper.ask("postgres")
print(run.folder, valkey.url, flush=True)
sys.stdin.readline()
run.end()
"""
ROOT = Path(__file__).parents[1]


def gone(true: object) -> bool:
    """Whether it comes true in time, on a busy machine too."""
    deadline = time.monotonic() + 60
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("end", ["in order", signal.SIGTERM, signal.SIGKILL])
def test_services_and_folders_are_gone_however_the_run_ends(end: str | signal.Signals) -> None:
    which = "postgres" if end is signal.SIGKILL else "valkey alone"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, which],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        folder, url = run.stdout.readline().split()
        started = psutil.Process(run.pid).children(recursive=True)
        servers = [one for one in psutil.process_iter() if place_of(one).startswith(folder)]
        if isinstance(end, signal.Signals):
            run.send_signal(end)

    assert Path(folder).name.startswith("gt-")
    assert len(servers) >= (2 if which == "postgres" else 1)
    assert gone(lambda: not [one for one in (*started, *servers) if alive(one)])
    assert gone(lambda: not Path(folder).exists())
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as broker:
        broker.ping()


def place_of(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.com", 443)])
def test_a_test_that_would_leave_this_machine_fails(address: tuple[str, int]) -> None:
    with pytest.raises(pytest.fail.Exception, match=address[0]):
        socket.create_connection(address, timeout=1)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("", True),
        ("10.0.0.1", False),
        ("2001:db8::1", False),
        ("localhost.example.com", False),
    ],
)
def test_this_machine_is_loopback_and_nothing_else(host: str, expected: bool) -> None:
    assert is_here(host) == expected
