"""One child process in its own group: started, watched, and ended with all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_CHILD = Path(__file__).with_name("_child.py")
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000


class Process:
    """A running program that writes its output to `log`.

    Args:
        death_signal: what the kernel sends it if this process dies without ending it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        death_signal: int = signal.SIGTERM,
    ) -> None:
        self.log = log
        wrapped = [
            sys.executable,
            "-I",
            "-S",
            str(_CHILD),
            str(int(death_signal)),
            str(os.getpid()),
            *command,
        ]
        # A session of its own: Ctrl-C in the terminal reaches the supervisor, which then ends
        # things in order.
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - what the components declare
                wrapped,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal, as in `subprocess`."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        # It is not reaped: as long as it is a zombie, its pid cannot belong to another group.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def ask_to_stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Send the main process a signal; harmless if it is gone."""
        if self.exit_code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds), then kill it and the rest of its group."""
        while self.exit_code() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self._popen.returncode is None:
            kill_group(self.pid)
            self._popen.wait()

    def tail(self) -> str:
        """The end of its log, for an error message."""
        try:
            text = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-12:])


def kill_group(group: int) -> None:
    """Kill what is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the epoch; None if there is no such process.

    Together with the pid it identifies one process.
    """
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
