"""The parent of all jobs, which imports what jobs need and forks one child per job.

Run as `python -m guard.jobs.server`. It starts with a clean environment, opens no model, computes
nothing with torch and never reads a request: it only receives the descriptors that a child works
with. So a job cannot see anything of another job.

Protocol: each message on the socket on stdin carries `DESCRIPTORS` descriptors, of the child's
stdin, stdout and stderr and of a socket of the job's own. On the latter the server sends
`{"pid": N}` and finally `{"code": N, "peak": BYTES}`; when its other end closes, the job is killed.
When the socket on stdin closes, everything ends.

A fork after the imports is safe with a single thread and without CUDA. `hazards` checks both. If
either does not hold, the child starts Python afresh, which costs seconds and is otherwise the same.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DESCRIPTORS = 4
_KIB = 1024  # the unit of ru_maxrss on Linux
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def hazards() -> list[str]:
    """Why a fork of this process would not be safe; empty if it is."""
    found = []
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        found.append(f"{threads} threads")
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this listing is closed by now
            target = str(link.readlink())
            if target.startswith("/dev/nvidia"):
                # CUDA was used, and it does not survive a fork.
                found.append(f"{target} is open")
    return found


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int  # a pidfd: readable once the process has ended
    report: socket.socket

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):  # its process group may not exist yet
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)

    def send(self, **facts: int) -> None:
        with suppress(OSError):  # nobody reads it any more
            self.report.send(json.dumps(facts).encode())

    def close(self) -> None:
        os.close(self.ended)
        self.report.close()


class Server:
    """Forks a child for every message on `control`.

    Args:
        control: a SOCK_SEQPACKET socket.
        become: what a child runs instead of the server, with the job's stdin, stdout and stderr;
            never returns.
    """

    def __init__(self, control: socket.socket, become: Callable[[], None]) -> None:
        self._control = control
        self._become = become
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._receive)
        self._serving = True

    def serve(self) -> None:
        """Work until the other end of `control` closes; then every child is dead."""
        while self._serving or self._children:
            for key, _ in self._selector.select():
                # A child and its reader may end at the same time; the first of the two events takes
                # both out of the selector.
                if key.fd in self._selector.get_map():
                    key.data()

    def _receive(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, DESCRIPTORS)
        if len(descriptors) == DESCRIPTORS:
            self._fork(*descriptors)
        elif not message:
            self._serving = False
            self._selector.unregister(self._control)
            for child in self._children:
                child.kill()

    def _fork(self, stdin: int, stdout: int, stderr: int, report: int) -> None:
        streams = (stdin, stdout, stderr)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            self._close()
            for descriptor in (*streams, report):
                os.close(descriptor)
            self._become()
        for descriptor in streams:
            os.close(descriptor)
        child = _Child(pid, os.pidfd_open(pid), socket.socket(fileno=report))
        child.send(pid=pid)
        self._children.append(child)
        self._selector.register(child.ended, selectors.EVENT_READ, lambda: self._reap(child))
        self._selector.register(child.report, selectors.EVENT_READ, lambda: self._abandon(child))

    def _abandon(self, child: _Child) -> None:
        """Kill a child that nobody waits for any more."""
        self._selector.unregister(child.report)
        child.kill()

    def _reap(self, child: _Child) -> None:
        self._selector.unregister(child.ended)
        with suppress(KeyError):
            self._selector.unregister(child.report)
        # Kills what the child itself started. Its pid cannot belong to another group before wait4.
        child.kill()
        _, status, used = os.wait4(child.pid, 0)
        child.send(code=os.waitstatus_to_exitcode(status), peak=used.ru_maxrss * _KIB)
        child.close()
        self._children.remove(child)

    def _close(self) -> None:
        """In a child, close everything that belongs to the server or to other jobs."""
        self._selector.close()
        self._control.close()
        for child in self._children:
            child.close()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; exit if it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before this job began")


def main() -> None:
    """Import, check whether a fork is safe, and serve the socket on stdin."""
    from guard.core.importing import uncollected

    with uncollected():
        from guard.core import plugins
        from guard.jobs import child, preload
        from guard.settings import plugin_folder

        plugins.use(plugin_folder())
        control = socket.socket(fileno=os.dup(0))
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        preload.jobs()
    found = hazards()
    if found:
        sys.stderr.write(f"job server: {', '.join(found)}; each job starts Python afresh\n")
    own = os.getpid()

    def become() -> None:
        code = 1
        try:
            die_with(own)
            if found:
                os.execv(sys.executable, [sys.executable, "-P", "-m", "guard.jobs.child"])  # noqa: S606 - our own program
            child.main()
            code = 0
        except BaseException:  # noqa: BLE001 - a job must never go on as a server
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)  # skips the server's frames and CUDA's slow clean-up

    Server(control, become).serve()


if __name__ == "__main__":
    main()
