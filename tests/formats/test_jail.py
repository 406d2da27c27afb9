"""The jail holds.

Whatever runs inside has no file, no network, no process, no environment and no time without end.
"""

import io
import json
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, Unavailable
from guard.formats import _jail, _locks
from guard.formats._jail import cpu_seconds
from guard.formats.pytorch_state_dict import PytorchStateDict
from tests.formats import bombs
from tests.formats.jailing import LOCKS, jailed, needs_jail

UNPICKLE = """
import pickle
os.write(1, b'S')
try:
    pickle.loads(os.read(0, 100000))
except BaseException as error:
    os.write(1, type(error).__name__.encode())
else:
    os.write(1, b'done')
"""

ATTEMPTS = """
def attempt(act):
    try:
        act()
    except BaseException as error:
        return type(error).__name__
    return 'possible'
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno())
tries = {
    'read a file': lambda: open('/etc/passwd').read(),
    'write a file': lambda: open('/tmp/guard-jail-test', 'w'),
    'list a folder': lambda: os.listdir('/'),
    'read the parent': lambda: open('/proc/%d/environ' % os.getppid()).read(),
    'tcp': lambda: socket.create_connection(('127.0.0.1', 80), 1),
    'unix socket': lambda: socket.socket(socket.AF_UNIX),
    'socket pair': lambda: socket.socketpair(),
    'fork': os.fork,
    'exec': lambda: os.execv('/bin/true', ['true']),
    'signal the parent': lambda: os.kill(os.getppid(), 0),
    'become root': lambda: os.setuid(0),
    'unshare': lambda: call(272, 0x10000000),
    'ptrace': lambda: call(101, 16, os.getppid(), 0, 0),
    'io_uring': lambda: call(425, 8, 0),
    'memfd': lambda: os.memfd_create('x'),
    'raise limits': lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    'much memory': lambda: bytearray(4 << 30),
    'delete': lambda: os.unlink('/tmp'),
    'change folder': lambda: os.chdir('/'),
}
found = {name: attempt(act) for name, act in tries.items()}
thread = threading.Thread(target=lambda: found.update(thread='possible')); thread.start(); thread.join()
os.write(1, b'S' + json.dumps(found).encode())
"""  # noqa: E501 - a script of its own


class Payload:
    """Runs Python when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def refused(body: str, **options: Any) -> str:
    with pytest.raises(ArtifactRejected) as caught:
        jailed(body, **options)
    return caught.value.code


@pytest.mark.row(14)
@pytest.mark.threat("C01")
@needs_jail
def test_nothing_but_computing_is_possible() -> None:
    found = json.loads(jailed(ATTEMPTS))

    assert found.pop("thread") == "possible"
    assert not [name for name, result in found.items() if result == "possible"]


@pytest.mark.row(15)
@pytest.mark.threat("C01")
@needs_jail
def test_an_unpickled_payload_cannot_write(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    tmp_path.chmod(0o777)
    payload = pickle.dumps(Payload(f"open({str(canary)!r}, 'w').write('x')"))

    said = jailed(UNPICKLE, data=payload)

    assert said == b"PermissionError"
    assert not canary.exists()


def test_the_same_payload_writes_where_there_is_no_jail(tmp_path: Path) -> None:
    """The canary has teeth: the test above would see it."""
    canary = tmp_path / "canary"
    payload = pickle.dumps(Payload(f"open({str(canary)!r}, 'w').write('x')"))

    subprocess.run(
        [sys.executable, "-c", "import os" + UNPICKLE],
        input=payload,
        check=True,
        capture_output=True,
    )

    assert canary.exists()


@pytest.mark.row(14)
@pytest.mark.threat("C01")
@needs_jail
def test_an_unpickled_payload_cannot_phone_home() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        payload = pickle.dumps(
            Payload(f"import socket; socket.create_connection({server.getsockname()})")
        )

        said = jailed(UNPICKLE, data=payload)

        with pytest.raises(TimeoutError):
            server.accept()
    assert said == b"PermissionError"


@pytest.mark.threat("C01")
@needs_jail
def test_an_unpickled_payload_finds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    payload = pickle.dumps(Payload("import os; os.write(1, repr(dict(os.environ)).encode())"))

    said = jailed(UNPICKLE, data=payload)

    assert b"LC_ALL" in said
    assert b"hush" not in said


@needs_jail
def test_no_descriptor_of_the_parent_is_open_in_the_child(tmp_path: Path) -> None:
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(secret, True)
    try:
        body = (
            f"os.write(1, b'S')\ntry:\n    os.fstat({secret})\nexcept OSError:\n    "
            "os.write(1, b'closed')"
        )

        assert jailed(body) == b"closed"
    finally:
        os.close(secret)


@needs_jail
def test_the_file_cannot_be_written_through_its_descriptor() -> None:
    body = "os.write(1, b'S')\ntry:\n    os.write(0, b'x')\nexcept OSError:\n    os.write(1, b'no')"

    assert jailed(body, data=b"data") == b"no"


@needs_jail
@pytest.mark.threat("C01")
def test_landlock_alone_keeps_every_file_out_of_reach(tmp_path: Path) -> None:
    """Seccomp refuses open() too, so that without this nobody would notice Landlock's absence."""
    tmp_path.chmod(0o777)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o666)
    tries = f"""
found = []
for act in (
    lambda: os.open({str(tmp_path / "file")!r}, os.O_RDONLY),
    lambda: os.open({str(tmp_path / "file")!r}, os.O_WRONLY),
    lambda: os.listdir({str(tmp_path)!r}),
    lambda: os.mkdir({str(tmp_path / "folder")!r}),
    lambda: os.unlink({str(tmp_path / "file")!r}),
):
    try:
        act()
    except OSError as error:
        found.append(type(error).__name__)
    else:
        found.append('possible')
os.write(1, b'S' + json.dumps(found).encode())
"""
    without = LOCKS.replace("own =", "_locks._seccomp = _locks._check = lambda: None\nown =")

    found = json.loads(jailed(tries, locks=without))

    assert found == ["PermissionError"] * 5


@needs_jail
def test_root_becomes_nobody_where_there_is_no_user_namespace() -> None:
    """Asked before the last lock, behind which even that question is refused."""
    without = "own = False; _locks._seccomp = _locks._check = lambda: None"
    locks = LOCKS.replace("own = _locks.leave_the_world()", without)

    said = jailed("os.write(1, b'S%d' % os.getuid())", locks=locks)

    assert str(65534 if os.geteuid() == 0 else os.geteuid()).encode() == said


@pytest.mark.row(14)
@needs_jail
def test_a_child_that_never_ends_is_killed() -> None:
    assert refused("while True: pass", budget=Budget(seconds=0.5)) == "over_time_budget"


@needs_jail
def test_a_child_that_talks_without_end_is_cut_off() -> None:
    body = "os.write(1, b'S')\nwhile True: os.write(1, bytes(65536))"

    assert (
        refused(body, budget=Budget(file_bytes=100_000, header_bytes=100, seconds=20))
        == "output_too_large"
    )


@needs_jail
@pytest.mark.parametrize(
    "body",
    [
        "import ctypes; ctypes.string_at(0)",
        "os._exit(3)",
        "os.write(1, b'S'); os._exit(3)",
        "os.write(1, b'Rmade_up_code')",
        "os.write(1, b'x')",
        "",
    ],
)
def test_a_child_that_breaks_or_lies_is_a_refusal(body: str) -> None:
    assert refused(body) == "jail_crashed"


@pytest.mark.row(14)
@pytest.mark.parametrize(
    "locks",
    [
        "import sys; sys.exit('no locks')\n",
        "raise OSError\n",
        "import os; os.write(1, b'S')\n",
    ],
)
def test_without_locks_there_is_no_conversion(locks: str) -> None:
    with pytest.raises(Unavailable) as caught:
        jailed("", locks=locks)

    assert caught.value.code == "jail_unavailable"


def test_an_unknown_machine_is_no_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")

    with pytest.raises(Unavailable) as caught:
        _locks._seccomp()

    assert caught.value.code == "jail_unavailable"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_ends_in_refusal_and_its_jumps_stay_inside(machine: str) -> None:
    program = _locks._filter(machine)

    assert all(len(step) == 8 for step in program)
    assert len(program) < 256
    assert program[-1] == struct.pack("HBBI", 0x06, 0, 0, 0x00050001)
    for place, step in enumerate(program[:-1]):
        _, if_true, if_false, _ = struct.unpack("HBBI", step)
        assert place + 1 + max(if_true, if_false) < len(program)


def test_nobody_is_left_behind() -> None:
    before = _children()
    with pytest.raises(Unavailable):
        jailed("", locks="import sys; sys.exit(1)\n")

    assert before == _children()


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_the_kill_signal_is_not_mistaken_for_a_verdict() -> None:
    """A child that is killed before it has locked itself in says nothing about the file."""
    with pytest.raises(Unavailable):
        jailed(
            "",
            locks=f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})\n",
            data=io.BytesIO(b"x").read(),
        )


@needs_jail
@pytest.mark.threat("C08")
@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (bombs.nested_key, {"over_time_budget"}),
        (bombs.colliding_keys, {"over_time_budget"}),
        (bombs.deep_nesting, {"no_state_dict", "jail_crashed", "checkpoint_unreadable"}),
    ],
)
def test_a_small_file_that_computes_for_minutes_is_stopped_within_seconds(
    make: Callable[[], bytes], codes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two seconds in place of five, so that the test is short."""
    monkeypatch.setattr(_jail, "_CPU_SECONDS", 2)
    data = bombs.checkpoint(make())
    assert len(data) < 4 << 20
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime

    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().tensors(io.BytesIO(data), budget=Budget(seconds=120))

    assert caught.value.code in codes
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 15


def test_a_large_file_may_compute_for_as_long_as_its_size_needs() -> None:
    assert cpu_seconds(1000, Budget()) < 10
    assert cpu_seconds(200 << 20, Budget()) >= 50
    assert cpu_seconds(4 << 30, Budget(seconds=120)) == 121
