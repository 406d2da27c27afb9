"""What stands between the service and its outside: serving, checkpoints, broker, jobs, locks.

Each is the real code with points before and after what it changes, at which a worker may die.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from benchmarks.simulation.turns import Crash, Turns
from guard.core.contracts import AnySmoke, Receipt
from guard.core.errors import Unavailable
from guard.flow import _checkpoints, canary, detect, inspect, purify
from guard.flow import _cleanset_cache as cleanset_cache
from guard.publishers import _weights, folder
from guard.publishers.folder import Folder
from workers import tasks

if TYPE_CHECKING:
    from benchmarks.simulation.world import World


class Serving(Folder):
    """A folder to serve from that does not always answer, and whose writers may die."""

    def __init__(self, turns: Turns, root: Path) -> None:
        super().__init__(root)
        self.turns, self.away = turns, 0.0

    def publish(self, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:
        self._reach("publish")
        receipt = super().publish(approved, weights, smoke)
        self.turns.changes += 1
        self.turns.point("after publishing")
        return receipt

    def withdraw(self, name: str, version: str) -> None:
        self._reach("withdraw")
        super().withdraw(name, version)
        self.turns.changes += 1
        self.turns.point("after withdrawing")

    def _reach(self, what: str) -> None:
        self.turns.point(f"before {what}")
        if self.away and self.turns.rng.random() < self.away:
            raise Unavailable("Serving does not answer.")


class Clock:
    """`time` as the checkpoints' lock sees it: waiting lets others work."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def monotonic(self) -> float:
        return self.world.clock.timestamp()

    def sleep(self, _seconds: float) -> None:
        self.world.turns.wait()


class Files:
    """`shutil` as the folder publisher sees it: a process that was killed tidies nothing up."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def rmtree(self, path: Path, **more: Any) -> None:
        if not self.turns.dead:
            shutil.rmtree(path, **more)


class Broker:
    """A Celery application that takes messages."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def send_task(self, name: str, kwargs: dict[str, Any], **_: Any) -> None:
        self.world.turns.point("before sending")
        self.world.broker.append((name.removeprefix("guard."), kwargs))
        self.world.turns.point("after sending")


def outside(world: "World") -> Iterator[tuple[Any, str, Any]]:
    """What is put in place of what: (module or class, name, stand-in)."""
    turns = world.turns
    for module in (inspect, detect, purify, canary, cleanset_cache):
        yield module, "run_job", world.jobs.run
    for module in (canary, cleanset_cache):
        yield module, "version", lambda _name: "1"  # reading a package's metadata takes 1 ms
    # Each worker is a process of its own, so no lock of one process is shared.
    yield canary, "_one_at_a_time", contextlib.nullcontext()
    # What dies here are processes; the machine keeps its power.
    yield os, "fsync", lambda _handle: None
    # A seed gives the same ids, and with them the same order of rows of one moment.
    yield uuid, "uuid4", lambda: uuid.UUID(int=world.ids.getrandbits(128), version=4)
    yield tasks, "the_guard", lambda: world.guard
    yield _checkpoints, "time", Clock(world)
    yield folder, "shutil", Files(turns)

    replace_durably = _weights.replace_durably

    def replaced(draft: Path, target: Path, **more: Any) -> None:
        if turns.dies("inside publishing"):
            raise Crash
        replace_durably(draft, target, **more)

    yield folder, "replace_durably", replaced

    append = _checkpoints.CheckpointStore.append
    put_copy = _checkpoints.BucketCopy.put

    def appended(store: Any, line: bytes, size: int) -> None:
        turns.point("before a checkpoint")
        if turns.dies("inside a checkpoint"):
            with store.path.open("r+b" if store.path.exists() else "wb") as file:
                file.truncate(size)
                file.seek(size)
                file.write(line[: len(line) // 2])
            raise Crash
        append(store, line, size)
        turns.point("after a checkpoint")

    def put(store: Any, number: int, line: bytes) -> None:
        put_copy(store, number, line)
        turns.point("after a checkpoint's copy")

    yield _checkpoints.CheckpointStore, "append", appended
    yield _checkpoints.BucketCopy, "put", put
