"""Processes that stand for containers: a service's own command, settings, folders and locks.

What is of the container's own becomes this machine's: its folders are folders of the test, names
of other services are the addresses of those that were started, ports are free ones. What compose
takes away stays away: no new privileges, and no write outside the volumes and `tmpfs` (Landlock
stands for the read-only root; where the kernel has none, that is not tried).
"""

import ctypes
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.docker import compose, dockerfile
from tests.house.sources import ROOT
from tests.services import START_SECONDS

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVS, _DIE_WITH_PARENT, _KILL = 38, 1, 9
#: Write, remove, make and truncate; version 1 of Landlock knows the first 13 rights.
_WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_OF_A_FILE = (1 << 1) | _TRUNCATE
#: What is writable in every container. `TMPDIR` does not reach the jobs, so /tmp is this machine's.
ALWAYS = (Path("/dev"), Path("/proc"), Path("/tmp"))
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The version of Landlock that this kernel has, or less than 1."""
    return int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def lock(writable: list[int], version: int) -> None:
    """Let this process and its children write below these open folders only, and gain no rights."""
    _libc.prctl(_DIE_WITH_PARENT, _KILL, 0, 0, 0)
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if version < 1:
        return
    handled = _WRITES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("<Q", handled)
    rules = _libc.syscall(_CREATE, attributes, ctypes.c_size_t(8), ctypes.c_uint32(0))
    for folder in writable:
        rule = struct.pack("<Qi", handled, folder)
        if _libc.syscall(_ADD, rules, 1, rule, ctypes.c_uint32(0)) != 0:
            raise OSError(ctypes.get_errno(), "Landlock takes no rule")
    if _libc.syscall(_RESTRICT, rules, ctypes.c_uint32(0)) != 0:
        raise OSError(ctypes.get_errno(), "Landlock does not lock")
    os.close(rules)


@dataclass
class Host:
    """This machine as the one that compose runs on.

    `hosts` has, by the name and port of a service ("db", "s3:8333"), what stands for it here.
    """

    folder: Path
    model: Mapping[str, Any]
    hosts: dict[str, str] = field(default_factory=dict)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def log(self, name: str) -> str:
        """What a service printed, the end of it."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def places(self, name: str) -> dict[str, Path]:
        """The folders of this machine that stand for those that a service sees, by its path."""
        service = self.model["services"][name]
        found = {
            mount.target: self.folder / "volumes" / mount.source
            if mount.named
            else compose.FOLDER / mount.source
            for mount in compose.mounts(service)
        }
        for target in compose.in_memory(service):
            found[target] = self.folder / "tmpfs" / name / target.strip("/").replace("/", "-")
            found[target].mkdir(parents=True, exist_ok=True)
        for mount in compose.mounts(service):
            if mount.named:
                found[mount.target].mkdir(parents=True, exist_ok=True)
        return found

    def here(self, name: str, text: str) -> str:
        """A value of a service's command or settings as it is right on this machine."""
        places = self.places(name)
        longest_first = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        text = re.sub(
            rf"(?<![\w/.])(?:{longest_first})(?=$|[/\s:'\"])",
            lambda match: str(places[match[0]]),
            text,
        )
        for host, address in self.hosts.items():
            text = re.sub(rf"(?<=[@/]){re.escape(host)}(?![\w.:-])", address, text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a service: its own, the image's, and nothing of this process's."""
        own = compose.environment(self.model["services"][name], self.folder)
        programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        kept = {key: os.environ[key] for key in ("OMP_NUM_THREADS",) if key in os.environ}
        return {
            **{key: self.here(name, value) for key, value in own.items()},
            **kept,
            "PATH": programs,
            "PYTHONPATH": str(ROOT),  # stands for the installed package
            "HOME": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    def command(self, name: str) -> list[str]:
        """The command of a service, or of its image."""
        service = self.model["services"][name]
        image = service["image"].removeprefix("registry-guard-")
        parts = service.get("command") or dockerfile.stages()[image].command
        return [self.here(name, part) for part in parts]

    def start(self, name: str, *more: str, program: str = "") -> subprocess.Popen[bytes]:
        """Start a service as compose does.

        Args:
            more: options that override those of its command.
            program: the path of its program, where it is not called as in the image.
        """
        command = [*self.command(name), *more]
        if program:
            command[0] = program
        service = self.model["services"][name]
        read_only = {mount.target for mount in compose.mounts(service) if mount.read_only}
        places = self.places(name)
        writable = [place for target, place in places.items() if target not in read_only]
        version = landlock_version()
        opened = [os.open(path, os.O_PATH) for path in (*writable, *ALWAYS)]
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=places["/tmp"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: lock(opened, version),  # noqa: PLW1509 - system calls alone
            )
        for descriptor in opened:
            os.close(descriptor)
        self.started[name] = process
        return process

    def finish(self, name: str) -> None:
        """Start a service that ends by itself, and see it end well."""
        code = self.start(name).wait(START_SECONDS)
        assert code == 0, self.log(name)

    def healthy(self, name: str) -> bool:
        """Whether a service's own health check says so; without one, whether it runs."""
        if self.started[name].poll() is not None:
            raise AssertionError(f"{name} ended: {self.log(name)}")
        check = self.model["services"][name].get("healthcheck")
        if check is None:
            return True
        command = [self.here(name, part) for part in check["test"][1:]]
        done = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=20, check=False
        )
        return done.returncode == 0

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait for a service, or fail with what it printed."""
        end = time.monotonic() + START_SECONDS
        while not ready():
            assert time.monotonic() < end, f"{name} is not ready: {self.log(name)}"
            assert self.started[name].poll() is None, f"{name} ended: {self.log(name)}"
            time.sleep(0.2)

    def stop(self) -> None:
        """End what still runs, with all that it started."""
        for process in self.started.values():
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                for one in (process, *children):
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
            process.wait()
