"""The guard's own inference server for one machine: private management socket, keys, no torch."""

import json
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from guard.local._ports import LOOPBACK
from guard.local._process import Process
from guard.local.component import Component, Place, answers

MODULE = "guard.inference"
_SOCKET = "m.sock"


class OpenInference(Component):
    """Needs the packages of the extra `serving`.

    Args:
        trusted: file of public keys that releases are verified with.
    """

    name: ClassVar[str] = "open_inference"
    start_seconds = 60.0

    def __init__(self, place: Place, *, trusted: Path) -> None:
        self._place, self._trusted = place, trusted
        self._home = place.run / "oi"

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self._place.ports['open_inference']}"

    def environment(self) -> dict[str, str]:
        return {
            "GUARD_OPEN_INFERENCE_MANAGEMENT": f"unix:{self._home / _SOCKET}",
            "GUARD_OPEN_INFERENCE_ADDRESS": self.address,
            "GUARD_OPEN_INFERENCE_RUN_DIR": str(self._home),
            "GUARD_OPEN_INFERENCE_STORE": str(self._home / "store"),
        }

    def start(self) -> Process:
        home = self._home
        # It starts empty each time: the guard's records decide what may be served, not its folders.
        shutil.rmtree(home, ignore_errors=True)
        for folder in (home, home / "store"):
            folder.mkdir(mode=0o700)
        config = {
            "host": LOOPBACK,
            "port": self._place.ports["open_inference"],
            "management": str(home / _SOCKET),
            "run_dir": str(home),
            "store": str(home / "store"),
            "trusted": str(self._trusted),
        }
        (home / "config.json").write_text(json.dumps(config))
        return Process(
            [sys.executable, "-I", "-B", "-m", MODULE, str(home / "config.json")],
            env=self._place.clean_environment(home),
            cwd=home,
            log=self._place.run / "open_inference.log",
        )

    def works(self) -> bool:
        return (self._home / _SOCKET).is_socket() and answers(
            f"{self.address}/v2/health/ready", below=300
        )
