"""The server as a process: both addresses, private files, and its end."""

import json
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from guard.inference import _protocol
from guard.inference.__main__ import main
from guard.local._ports import LOOPBACK, free_ports
from tests.inference.making import NAME, VERSION
from tests.publishers.making import Authority, wait_until


@pytest.fixture
def home() -> Iterator[Path]:
    with TemporaryDirectory(prefix="oi-") as folder:  # the path of a socket must be short
        yield Path(folder)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The limits that the process asks for; this one keeps its own, and its umask."""
    asked: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *given: asked.append(given))
    before = os.umask(0o022)
    yield asked
    os.umask(before)


def while_it_serves(config: Path, look: Callable[[], Any]) -> Any:
    """What `look` returns while the server runs in this thread; then it is asked to end."""
    found: list[Any] = []

    def visit() -> None:
        try:
            found.append(look())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    main([str(config)])
    visitor.join()
    return found[0]


def config_in(home: Path, folder: Path, authority: Authority) -> tuple[Path, int]:
    """A configuration, and the port in it."""
    (port,) = free_ports(1)
    (home / "config.json").write_text(
        json.dumps(
            {
                "host": LOOPBACK,
                "port": port,
                "management": str(home / "m.sock"),
                "run_dir": str(home),
                "store": str(folder.parents[1]),
                "trusted": str(authority.trusted),
            }
        )
    )
    return home / "config.json", port


def alive(port: int) -> bool:
    """Whether the server answers."""
    try:
        url = f"http://{LOOPBACK}:{port}/v2/health/ready"
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.threat("A11")
def test_it_serves_on_both_addresses_in_private_and_ends_when_asked(
    home: Path, folder: Path, authority: Authority, limits: list[Any]
) -> None:
    config, port = config_in(home, folder, authority)
    address, unix = f"http://{LOOPBACK}:{port}", home / "m.sock"
    unix.touch()  # left by a server that was killed

    def look() -> dict[str, int]:
        assert wait_until(lambda: alive(port))
        keys = json.loads((home / "key_file.json").read_text())
        transport = httpx.HTTPTransport(uds=str(unix))
        token = {"Authorization": f"Bearer {keys['management']['key']}"}
        with httpx.Client(transport=transport, headers=token, base_url="http://x") as guard:
            loaded = guard.put(f"/models/{NAME}/{VERSION}").status_code
        token = {"Authorization": f"Bearer {keys['inference']['key']}"}
        with httpx.Client(base_url=address, headers=token, trust_env=False) as client:
            served = client.get(f"/v2/models/{NAME}/versions/{VERSION}").status_code
            management = client.get("/models").status_code
        return {
            "loaded": loaded,
            "served": served,
            "management on the inference address": management,
            "socket": stat.S_IMODE(unix.stat().st_mode) & 0o077,
            "keys": stat.S_IMODE((home / "key_file.json").stat().st_mode) & 0o077,
        }

    assert while_it_serves(config, look) == {
        "loaded": 200,
        "served": 200,
        "management on the inference address": 404,
        "socket": 0,
        "keys": 0,
    }
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]
    assert not alive(port)


def test_clients_who_send_nothing_or_too_slowly_are_shown_out(
    home: Path,
    folder: Path,
    authority: Authority,
    limits: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_protocol, "SILENT_SECONDS", 0.3)
    config, port = config_in(home, folder, authority)
    starts = {
        "nothing": b"",
        "half a header": b"POST /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "a request and then half a header": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /v2",
        "less body than announced": b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
    }

    def closed(start: bytes) -> bool:
        with socket.create_connection((LOOPBACK, port), timeout=10) as client:
            client.sendall(start)
            while client.recv(4096):
                pass
        return True

    def look() -> dict[str, bool]:
        assert wait_until(lambda: alive(port))
        found = {name: closed(start) for name, start in starts.items()}
        with httpx.Client(trust_env=False) as busy:  # one that goes on asking is not shown out
            for _ in range(8):
                busy.get(f"http://{LOOPBACK}:{port}/v2/health/live")
                time.sleep(0.1)
        return found

    assert while_it_serves(config, look) == dict.fromkeys(starts, True)
