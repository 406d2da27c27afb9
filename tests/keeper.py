"""What a whole test run shares: one temporary folder, and services that are started once.

The process that the person started (with pytest-xdist the one that runs no test) is the keeper: it
starts a service when a test process first asks for it, and ends it with the run. Where it is
killed, the kernel kills its services with it (tests/services.py); what that does not reach,
PostgreSQL and the temporary folder, a janitor clears away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

#: Where the keeper listens; test processes inherit it.
ADDRESS = "TEST_KEEPER"
Facts = dict[str, str]
_KEY = b"of no use to strangers: the socket's folder is private"
#: Waits for the end of its input, which is the end of the keeper, however it came about.
_JANITOR = """
import os, shutil, signal, sys
folders, groups = [], []
for line in sys.stdin:
    what, _, value = line.strip().partition(" ")
    (folders if what == "folder" else groups).append(value)
for group in groups:
    try:
        os.killpg(int(group), signal.SIGKILL)
    except OSError:
        pass
for folder in folders:
    for _ in range(20):  # somebody who is just being ended may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
"""


class Keeper:
    """Started by the first pytest process; `end` is the orderly end.

    Args:
        services: by name, what starts one and returns how it is reached. Called in a thread that
            lives as long as the process does, since a service dies with the thread that started it.
    """

    def __init__(self, services: dict[str, Callable[["Keeper"], Facts]]) -> None:
        self._services = services
        self._given: dict[str, Facts] = {}
        self._ends: list[Callable[[], object]] = []
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _JANITOR],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the keeper
        )
        before = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="gt-"))
        self._tell("folder", self.folder)
        self._environment = {
            name: os.environ.get(name) for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT", ADDRESS)
        }
        (self.folder / "tmp").mkdir()
        private = self.folder / "private"
        private.mkdir(mode=0o700)
        # As root PostgreSQL runs as another user, who must be able to pass.
        self.folder.chmod(0o711)
        # pytest's own folders stay where they are: a person looks at those of a failed test.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", before)
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")
        self._listener = Listener(str(private / "s"), "AF_UNIX", authkey=_KEY)
        os.environ[ADDRESS] = str(self._listener.address)
        threading.Thread(target=self._serve, name="keeper", daemon=True).start()

    def at_end(self, end: Callable[[], object], *, group: int | None = None) -> None:
        """How a service is ended with the run; its process group is killed if there is no `end`."""
        self._ends.append(end)
        if group is not None:
            self._tell("group", group)

    def end(self) -> None:
        """End the services, clear everything away, and wait until that is done."""
        self._listener.close()
        for end in reversed(self._ends):
            end()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        assert self._janitor.stdin is not None
        with suppress(BrokenPipeError):
            self._janitor.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._janitor.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tell(self, what: str, value: object) -> None:
        assert self._janitor.stdin is not None
        self._janitor.stdin.write(f"{what} {value}\n")
        self._janitor.stdin.flush()

    def _serve(self) -> None:
        while True:
            try:
                asker = self._listener.accept()
            except OSError:  # closed: the run is over
                return
            with asker, suppress(EOFError, OSError):
                self._answer(asker)

    def _answer(self, asker: Connection) -> None:
        name = asker.recv()
        try:
            if name not in self._given:
                self._given[name] = self._services[name](self)
        except Exception as error:  # noqa: BLE001 - told to the test that asked
            asker.send(f"{name} was not started: {error}")
        else:
            asker.send(self._given[name])


def ask(name: str) -> Facts:
    """How to reach a service of the run, which is started if nobody has asked before.

    Raises:
        RuntimeError: it does not start.
    """
    with Client(os.environ[ADDRESS], "AF_UNIX", authkey=_KEY) as keeper:
        keeper.send(name)
        answer = keeper.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)  # noqa: TRY004 - it carries the keeper's error
    return dict(answer)
