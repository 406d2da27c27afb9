"""The job server of this process and its forks, started on demand and replaced if it has died.

The server (`guard.jobs.server`) holds the imports that cost seconds; each job is a fork of it. This
side hands over descriptors and keeps one end of a socket per job: when that closes, for whatever
reason, the job is killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

_KILL_SECONDS = 10.0

_lock = threading.Lock()
_servers: "dict[frozenset[tuple[str, str]], _Server]" = {}  # by environment


class _Server:
    """A running job server, which forks of this process may use too."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: nothing is imported from the working folder. A session of its own, because Ctrl-C
            # is meant for the worker.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guard.jobs.server"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        # Not by pid: if another process started it, the pid may belong to another process by now.
        self._handle = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def hand_over(self, *descriptors: int) -> None:
        """Ask for a child with these descriptors; raises OSError if the server is gone."""
        socket.send_fds(self._control, [b"J"], list(descriptors))

    def end(self) -> None:
        """Kill it; the kernel kills its children with it."""
        self._control.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._process.wait()


def warm_up(environment: Mapping[str, str]) -> int:
    """Start the server for jobs with this environment unless it runs, and return its pid."""
    with _lock:
        key = frozenset(environment.items())
        if key not in _servers:
            _servers[key] = _Server(environment)
        return _servers[key].pid


def end_all() -> None:
    """Kill all servers that this process knows."""
    with _lock:
        while _servers:
            _servers.popitem()[1].end()


def _hand_over(environment: Mapping[str, str], *descriptors: int) -> None:
    warm_up(environment)
    with _lock:
        key = frozenset(environment.items())
        try:
            _servers[key].hand_over(*descriptors)
        except OSError:
            _servers.pop(key).end()
            _servers[key] = _Server(environment)
            _servers[key].hand_over(*descriptors)


class Child:
    """One job's process.

    Attributes:
        stdout: descriptor of its output, closed when the job ends.
        report: descriptor that is readable when `receive` has a message to read.
        pid: None before it is forked.
        code: its exit code, negative for a signal; None before it ends.
        peak_bytes: the most memory it held, known once it has ended.
    """

    def __init__(self, stdout: int, report: socket.socket) -> None:
        self.stdout = stdout
        self._report = report
        self.report = report.fileno()
        self.pid: int | None = None
        self.code: int | None = None
        self.peak_bytes = 0

    def receive(self) -> bool:
        """Read the server's next message; False after the last one.

        Raises:
            TimeoutError: the job was asked to end, and the server has not reacted.
        """
        try:
            data = self._report.recv(1 << 12)
        except ConnectionError:
            data = b""
        if not data:
            return False
        facts = json.loads(data)
        self.pid = facts.get("pid", self.pid)
        self.code = facts.get("code", self.code)
        self.peak_bytes = facts.get("peak", self.peak_bytes)
        return True

    def end(self) -> None:
        """Kill the job if it still runs, and wait for its end."""
        with suppress(OSError):
            self._report.shutdown(socket.SHUT_WR)
        self._report.settimeout(_KILL_SECONDS)
        try:
            while self.receive():
                pass
        except TimeoutError:
            end_all()


@contextmanager
def child(environment: Mapping[str, str], stdin: IO[bytes], stderr: IO[bytes]) -> Iterator[Child]:
    """A child process for one job; it is dead after the block.

    Args:
        environment: all environment variables that it sees.
        stdin: a file, positioned at its start.
        stderr: a file for its error output.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    out, into = os.pipe()
    with ours:
        try:
            try:
                _hand_over(environment, stdin.fileno(), into, stderr.fileno(), theirs.fileno())
            finally:
                os.close(into)
                theirs.close()
            job = Child(out, ours)
            try:
                yield job
            finally:
                job.end()
        finally:
            os.close(out)
