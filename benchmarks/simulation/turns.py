"""Workers of which one runs at a time, and that may die or be overtaken wherever a process may.

Each is a real thread, since the service's code is not written for anything else. A worker gives way
only at a point: before a transaction begins, before and after a commit, before and after an effect
outside the database. There it goes on, waits while others work, or dies. One that died can write
nothing more while its `finally` blocks run, as if its process had been killed.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session


class Crash(BaseException):
    """The worker's process was killed."""


@dataclass
class Worker:
    """One process that does one thing; `failed` is what it ended with, if not with success."""

    label: str
    born: int = 0  # the step in which it began
    dead: bool = False
    done: bool = False
    failed: BaseException | None = None
    open: set[int] = field(default_factory=set)
    thread: threading.Thread | None = None
    # Locks that are taken until the other side releases them: a third of a semaphore's cost.
    go: threading.Lock = field(default_factory=threading.Lock)
    back: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.go.acquire()
        self.back.acquire()


@dataclass
class Odds:
    """How often a worker dies, or waits, at a point where it may; in 0..1."""

    crash: float = 0.0
    wait: float = 0.0


class Turns:
    """Who runs. `commits`, `before` and `after` count commits and crashes by the code's place."""

    def __init__(self) -> None:
        self.rng = Random(0)
        self.odds = Odds()
        self.running: Worker | None = None
        self.waiting: list[Worker] = []
        self.commits: Counter[str] = Counter()
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        self.step = 0
        self.changes = 0  # commits and effects so far: nothing to check where there were none

    def reset(self, rng: Random, odds: Odds) -> None:
        self.rng, self.odds = rng, odds
        self.running, self.waiting, self.step = None, [], 0

    def start(self, label: str, work: Callable[[], object]) -> Worker:
        """Let a new worker run until it ends or waits."""
        worker = Worker(label, self.step)

        def body() -> None:
            worker.go.acquire()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - whoever started it looks at it
                worker.failed = error
            worker.done = True
            worker.back.release()

        worker.thread = threading.Thread(target=body, name=label, daemon=True)
        worker.thread.start()
        self._run(worker)
        return worker

    def resume(self, worker: Worker) -> Worker:
        """Let a worker that waits go on."""
        self.waiting.remove(worker)
        self._run(worker)
        return worker

    def kill(self, worker: Worker) -> Worker:
        """Let a worker that waits die where it is."""
        worker.dead = True
        return self.resume(worker)

    def point(self, place: str) -> None:
        """Where the running worker may wait or die."""
        worker = self._mine()
        if worker is None:
            return
        if worker.dead:
            raise Crash
        if worker.open:
            return  # it is inside a transaction
        drawn = self.rng.random() if self.odds.crash or self.odds.wait else 1.0
        if drawn < self.odds.crash:
            worker.dead = True
            self.effects[place] += 1
            raise Crash
        if drawn < self.odds.crash + self.odds.wait:
            self.wait()

    def wait(self) -> None:
        """Let others work before the running worker goes on."""
        worker = self._mine()
        if worker is None:
            return
        self.running = None
        self.waiting.append(worker)
        worker.back.release()
        worker.go.acquire()
        if worker.dead:
            raise Crash

    def dies(self, place: str) -> bool:
        """Draw whether the running worker is killed here; the caller raises `Crash`."""
        worker = self._mine()
        if worker is None or not self.rng.random() < self.odds.crash:
            return False
        worker.dead = True
        self.effects[place] += 1
        return True

    @property
    def dead(self) -> bool:
        """Whether the caller is a worker that was killed."""
        worker = self._mine()
        return worker is not None and worker.dead

    def _run(self, worker: Worker) -> None:
        self.running = worker
        worker.go.release()
        worker.back.acquire()
        self.running = None
        if worker.done and worker.thread is not None:
            worker.thread.join()

    def _mine(self) -> Worker | None:
        worker = self.running
        # The thread that renews a lease is no worker of its own.
        if worker is None or worker.thread is not threading.current_thread():
            return None
        return worker

    # What SQLAlchemy calls.

    def hook(self, engine: Engine) -> Callable[[], None]:
        """Watch all transactions of an engine; returns what ends that."""
        event.listen(engine, "checkout", self._checkout)  # always followed by a BEGIN
        event.listen(engine, "begin", self._begun)
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "rollback", self._over)
        event.listen(Session, "after_commit", self._committed)

        def unhook() -> None:
            event.remove(Session, "after_commit", self._committed)

        return unhook

    def _checkout(self, *_: Any) -> None:
        self.point("before a transaction")

    def _begun(self, connection: Any) -> None:
        worker = self._mine()
        if worker is not None:
            worker.open.add(id(connection))

    def _over(self, connection: Any) -> None:
        worker = self._mine()
        if worker is not None:
            worker.open.discard(id(connection))

    def _commit(self, connection: Any) -> None:
        worker = self._mine()
        if worker is not None:
            if not worker.dead and self.rng.random() < self.odds.crash:
                worker.dead = True
                self.before[_place()] += 1
            if worker.dead:
                # SQLAlchemy takes a commit that raises for done, and would leave it open.
                connection.connection.dbapi_connection.rollback()
                raise Crash
        self._over(connection)

    def _committed(self, _session: Session) -> None:
        self.changes += 1
        if self._mine() is None:
            return
        place = _place()
        self.commits[place] += 1
        worker = self.running
        if worker is not None and self.rng.random() < self.odds.crash:
            worker.dead = True
            self.after[place] += 1
            raise Crash


def _place() -> str:
    """The function of the service whose commit this is."""
    frame = sys._getframe(2)  # noqa: SLF001 - `inspect.stack` reads every source file
    while frame.f_back is not None:
        frame = frame.f_back
        file = frame.f_code.co_filename
        if "/guard/flow/" in file or "/workers/" in file:
            module = file.rpartition("/")[2].removesuffix(".py")
            return f"{module}.{frame.f_code.co_name}"
    return "?"
