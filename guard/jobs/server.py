"""The parent of jobs: has imported all that a job needs, and forks one child a job.

`python -m guard.jobs.server`.

It was started with a clean environment, opens no model, computes nothing with torch and never reads
a request: all that reaches it are the descriptors that a child works with. So nothing of one job
can be seen by the next.

Protocol, over the socket on its stdin: each message carries `DESCRIPTORS` descriptors, of the
child's stdin, stdout and stderr and of a socket of the job's own. On that one the server says
`{"pid": N}` and at last `{"code": N, "peak": BYTES}`; when its other end closes, the job is killed.
When the socket on stdin closes, everything ends.

A fork after the imports is safe with one thread and without CUDA. Both are looked at (`hazards`);
where they do not hold, the child starts Python afresh, which costs seconds and is otherwise the
same.
"""

import ctypes
import gc
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
        with suppress(OSError):  # the listing's own descriptor is gone by now
            target = str(link.readlink())
            if target.startswith("/dev/nvidia"):
                found.append(
                    f"{target} is open"
                )  # CUDA was asked for something, and does not survive a fork
    return found


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int  # a pidfd: readable once the process has ended
    report: socket.socket

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):  # it may not have its group yet
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)

    def say(self, **facts: int) -> None:
        with suppress(OSError):  # nobody listens any more
            self.report.send(json.dumps(facts).encode())

    def close(self) -> None:
        os.close(self.ended)
        self.report.close()


class Server:
    """Forks a child for every message on `control`.

    Args:
        control: a SOCK_SEQPACKET socket.
        become: what a child does in place of serving, with stdin, stdout and stderr of the job;
            never returns.
    """

    def __init__(self, control: socket.socket, become: Callable[[], None]) -> None:
        self._control = control
        self._become = become
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._hear)
        self._serving = True

    def serve(self) -> None:
        """Work until the other end of `control` closes; then every child is dead."""
        while self._serving or self._children:
            for key, _ in self._selector.select():
                # A child's end and the end of its reader may come together: the first takes both
                # out of the selector.
                if key.fd in self._selector.get_map():
                    key.data()

    def _hear(self) -> None:
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
        child.say(pid=pid)
        self._children.append(child)
        self._selector.register(child.ended, selectors.EVENT_READ, lambda: self._bury(child))
        self._selector.register(child.report, selectors.EVENT_READ, lambda: self._abandon(child))

    def _abandon(self, child: _Child) -> None:
        """Nobody waits for it any more."""
        self._selector.unregister(child.report)
        child.kill()

    def _bury(self, child: _Child) -> None:
        self._selector.unregister(child.ended)
        with suppress(KeyError):
            self._selector.unregister(child.report)
        # Whatever it started itself; until it is waited for, its number is no other group's
        child.kill()
        _, status, used = os.wait4(child.pid, 0)
        child.say(code=os.waitstatus_to_exitcode(status), peak=used.ru_maxrss * _KIB)
        child.close()
        self._children.remove(child)

    def _close(self) -> None:
        """In a child: let go of everything that belongs to the server or to other jobs."""
        self._selector.close()
        self._control.close()
        for child in self._children:
            child.close()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, ends.

    Exits if it has already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before this job began")


def main() -> None:
    """Import, look whether a fork is safe, and serve the socket on stdin."""
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
            os._exit(code)  # not through the server's frames, nor CUDA's slow farewell

    gc.collect()
    gc.freeze()  # what is imported stays in memory that all children share
    Server(control, become).serve()


if __name__ == "__main__":
    main()
