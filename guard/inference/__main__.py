"""Run the server: `python -I -B -m guard.inference CONFIG.json`.

The file holds the fields of `Config`; nothing comes from the environment, which may be empty.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from guard.inference._clients import Clients
from guard.inference._keys import make_keys
from guard.inference._management import Management
from guard.inference._models import Models
from guard.inference._protocol import Protocol
from guard.inference._web import Guarded

_MAX_CONNECTIONS = 256
_IDLE_SECONDS = 15
_STOP_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the server listens, what it reads, and how much it computes at one time.

    Attributes:
        host, port: the inference address.
        management: the path of a Unix socket in a folder that only this user may enter.
        run_dir: where it writes the tokens, `key_file.json`.
        store: the folder of what may be loaded.
        trusted: the file of public keys that sign releases.
        workers: requests that are computed at one time.
        threads: threads of one request.
    """

    host: str
    port: int
    management: str
    run_dir: str
    store: str
    trusted: str
    workers: int = 2
    threads: int = 1


class _Server(uvicorn.Server):
    """One listener; the process has two, which end together."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT; open requests get some seconds to end."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the tokens
    config = Config(**json.loads(Path(arguments[0]).read_text()))
    asyncio.run(_serve(config))


async def _serve(config: Config) -> None:
    models = Models(Path(config.store), Path(config.trusted), threads=config.threads)
    keys = make_keys(Path(config.run_dir))
    listeners = (
        (Clients(models, workers=config.workers).app(keys["inference"]), _port(config)),
        (Management(models).app(keys["management"]), _unix(Path(config.management))),
    )
    servers = [(_server(app), listener) for app, listener in listeners]

    def stop() -> None:
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers))


def _server(app: Guarded) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=Protocol,
            lifespan="off",
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_level="warning",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )


def _port(config: Config) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((config.host, config.port))
    return listener


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))  # the umask keeps it for this user
    return listener


if __name__ == "__main__":
    main(sys.argv[1:])
