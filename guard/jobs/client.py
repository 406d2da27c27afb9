"""The job server of this process and those forked from it.

Started when wanted, replaced when it has died.

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
    """A running job server; processes that are forked from this one may use it too."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: nothing is imported from the working folder. A session of its own: Ctrl-C is for
            # the worker.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guard.jobs.server"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        # Not by number: where another process started it, the number may be somebody else's by now.
        self._handle = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def hand_over(self, *descriptors: int) -> None:
        """Ask for a child with these; OSError if the server is no more."""
        socket.send_fds(self._control, [b"J"], list(descriptors))

    def end(self) -> None:
        """Kill it; the kernel kills its children with it."""
        self._control.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._process.wait()


def warm_up(environment: Mapping[str, str]) -> int:
    """Start the server for jobs with this environment, unless there is one.

    Returns its pid at once.
    """
    with _lock:
        key = frozenset(environment.items())
        if key not in _servers:
            _servers[key] = _Server(environment)
        return _servers[key].pid


def end_all() -> None:
    """Kill the servers that this process knows."""
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
        stdout: descriptor of what it says; at its end when the job is.
        report: descriptor that is readable when `hear` has something to do.
        pid: None before it was forked.
        code: how it ended, negative for a signal; None before that.
        peak_bytes: the most memory it held, known once it has ended.
    """

    def __init__(self, stdout: int, report: socket.socket) -> None:
        self.stdout = stdout
        self._report = report
        self.report = report.fileno()
        self.pid: int | None = None
        self.code: int | None = None
        self.peak_bytes = 0

    def hear(self) -> bool:
        """Take the server's next word; False after its last one.

        Raises:
            TimeoutError: the job was told to end, and the server has not reacted.
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
            while self.hear():
                pass
        except TimeoutError:
            end_all()


@contextmanager
def child(environment: Mapping[str, str], stdin: IO[bytes], stderr: IO[bytes]) -> Iterator[Child]:
    """A child process for one job, which is dead after the block.

    Args:
        environment: everything that it sees.
        stdin: a file at its start.
        stderr: a file for its last words.
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
